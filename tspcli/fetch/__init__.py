"""Files fetched once and kept; one module per kind of source."""
