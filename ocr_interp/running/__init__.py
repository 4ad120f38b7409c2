"""Shared by all long computations: interruption, the schedule of measurements, progress."""
