"""Exact solutions of balanced tasks."""
