"""Inside fine-tuned language models: updates of OV circuits, cuts, token circuits."""
