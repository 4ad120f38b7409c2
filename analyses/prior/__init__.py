"""What a model knew before: pretraining on old subjects, then new facts of new subjects."""
