"""How wide the OV circuit must be: Figure 6."""
