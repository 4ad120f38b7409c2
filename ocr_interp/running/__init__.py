"""What every long computation shares: interruption, the schedule of measurements, progress."""
