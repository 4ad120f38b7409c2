"""Circuit graphs: one data model, and what makes them from circuits, prompts and whole heads."""
