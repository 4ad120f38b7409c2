"""Which optimiser reasons out of context."""
