"""Spectra in degenerate blocks, angles between them, vectors and spans."""
