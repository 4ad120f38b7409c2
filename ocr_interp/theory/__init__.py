"""What gradient descent converges to, exactly: closed forms, solvers, certificates (numpy, scipy, cvxpy)."""
