"""What commands read: options in pairs, files and folders, and what a wrong word was meant to be."""
