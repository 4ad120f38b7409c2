"""Which parts of a trained circuit carry facts and implications."""
