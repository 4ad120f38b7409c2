"""Files that are whole or not there, folders with locks, digests, and results as plain data."""
