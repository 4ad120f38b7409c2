"""Interventions on any hooked model, and studies of many of them."""
