"""Questions put to a model as a whole, each asked once for each model by running it on a few tokens."""
