"""Embeddings of subjects, relations and answers, and their alignment with the predicted geometry."""
