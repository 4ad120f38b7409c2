"""Sweeps: grids of configurations, many models at once, one tidy table."""
