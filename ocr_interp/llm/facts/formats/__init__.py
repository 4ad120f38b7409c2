"""The formats of files of facts, one a module: who stands where, and in which words."""
