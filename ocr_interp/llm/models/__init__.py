"""Language models: loading, tokens, forward passes."""
