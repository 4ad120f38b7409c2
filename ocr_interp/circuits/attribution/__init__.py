"""What every token, through every head, adds to a logit."""
