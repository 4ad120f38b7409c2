"""Configurations of models, training and whole runs. Imports no torch, so a command line starts fast."""
