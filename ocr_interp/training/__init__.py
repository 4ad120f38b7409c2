"""Training: the training loop, what it measures, and runs in memory and on disk."""
