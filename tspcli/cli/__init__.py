"""The command line: click and rich, and nothing else of the package knows them."""
