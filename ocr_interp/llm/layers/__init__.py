"""What stands in the layers of a language model, and the modules that methods put there."""
