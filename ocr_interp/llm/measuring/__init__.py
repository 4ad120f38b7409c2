"""Measuring how a model answers, with confidence intervals."""
