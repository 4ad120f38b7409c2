"""What the parameterisation of W_OV does to out-of-context reasoning, one figure for each kind of map."""
