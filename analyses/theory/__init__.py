"""Theorems 1 and 2 and Figure 5: closed form, solver, L-BFGS, the saddle and gradient descent."""
