"""Where an intervention acts: a site (an activation), a path (some tokens through one head) or edges."""
