"""The paper's models and controls: Figures 2 to 4, Proposition 1, Theorem 3, claims about training."""
