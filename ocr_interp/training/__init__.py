"""Training: recipes, the loop, what is measured, runs in memory and on disk."""
