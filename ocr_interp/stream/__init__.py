"""The residual stream as nodes and edges: who writes to it, who reads it, and what one edge carries."""
