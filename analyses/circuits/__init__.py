"""What trained OV circuits look like: energy, embeddings, alignment over training, diagrams."""
