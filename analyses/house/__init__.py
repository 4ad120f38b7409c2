"""Code that all studies share: claims, experiments and their training, figures, tables of the pages."""
