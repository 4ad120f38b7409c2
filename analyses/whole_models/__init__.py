"""What carries a fact through a whole language model, before and after fine-tuning."""
