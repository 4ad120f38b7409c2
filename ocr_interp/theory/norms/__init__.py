"""Norms of W_OV, one file each."""
