"""One step of gradient descent in logarithms, and the file that keeps a descent."""
