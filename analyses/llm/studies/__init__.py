"""Studies of language models: each file has its question, its criteria and its planned runs."""
