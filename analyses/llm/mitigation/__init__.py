"""One fact with a causal and a spurious implication, and what keeps the first and loses the second."""
