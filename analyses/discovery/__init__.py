"""Circuits found by edge attribution, beside exact ablation and random circuits."""
