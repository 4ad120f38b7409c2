"""What a head attends to: by kind of token in fact-recall models, QK circuits in any model."""
