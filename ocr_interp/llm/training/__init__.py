"""Fine-tuning: the recipe, the trained parameters, the memory estimate, the files, the result."""
