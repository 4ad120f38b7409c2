"""Tokens that go into a model and come out: their labels, ids and sets, prompts, and those of a task."""
