"""What is run: model, recipe, and both with a task. No torch, so that a command line starts at once."""
