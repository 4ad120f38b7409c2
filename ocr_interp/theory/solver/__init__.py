"""How a reduced problem is solved: a splitting method and CVXPY programs."""
