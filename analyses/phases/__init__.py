"""When a model reasons out of context: phase diagrams."""
