"""Where gradient descent goes from a small start: a strict saddle, not the max-margin solution."""
