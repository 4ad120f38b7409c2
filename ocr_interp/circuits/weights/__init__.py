"""What weights of heads and MLPs say together: spectra of all heads, composition of pairs."""
