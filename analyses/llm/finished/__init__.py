"""What is read, judged and drawn of finished runs."""
