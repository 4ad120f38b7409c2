"""OV circuits of any hooked model: structure, embeddings, attribution, alignment, graphs."""
