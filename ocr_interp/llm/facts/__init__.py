"""Facts about people: built-in data sets, a user's files, and what is told of whom."""
