"""Facts about people: data sets, files, who is told what."""
