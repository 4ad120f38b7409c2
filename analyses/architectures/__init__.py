"""Which architectures of transformer-lens' bridges are read here, from tiny random models."""
