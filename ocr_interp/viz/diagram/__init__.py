"""Circuit graphs as drawings: layout, edges, matplotlib and DOT."""
