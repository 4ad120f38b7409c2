"""Interpreting fine-tuned language models: updates of OV circuits, ablations (cuts), token circuits."""
