"""The files of a fine-tuning run: what it was given, its folder with checkpoints, its result."""
