"""`find_circuit`, and the ways in which it prunes."""
