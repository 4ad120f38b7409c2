"""Pictures of result objects; nothing here imports a model."""
