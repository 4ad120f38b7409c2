"""Theorems 1 and 2 and Figure 5: closed form, solver, computed limit, gradient descent."""
