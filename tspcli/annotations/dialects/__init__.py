"""Annotation dialects, one module each."""
