"""What the one-layer model says of language models, beside what they do."""
