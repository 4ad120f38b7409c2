"""Optimisers, one file each, for the one-layer models and for language models."""
