"""Fact sets, one file each: facts, implications and their wordings."""
