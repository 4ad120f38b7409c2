"""What is asked of a model, and the intervals of the answers."""
