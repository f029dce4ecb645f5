"""What every run that writes files stands on: text, names, files, run folders, processes."""
