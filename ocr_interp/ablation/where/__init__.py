"""Where an intervention acts: a site (an activation) or a path (some tokens through one head)."""
