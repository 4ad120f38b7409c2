"""Atomic file writes, folders with locks, digests, and results as plain data."""
