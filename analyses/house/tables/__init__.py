"""Tables of pages and of the command line."""
