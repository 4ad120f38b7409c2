"""Fine-tuning: recipe, what is trained, memory, files, result."""
