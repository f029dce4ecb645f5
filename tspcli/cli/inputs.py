"""What commands take as videos."""

from __future__ import annotations

from pathlib import Path

import click

VIDEO_PATH = click.Path(exists=True, readable=False, path_type=Path)
"""A file, folder or list that is named on the command line, where a mistyped one ends at once.

Files that a list names may be missing: each is a failure of its own, and the others go on. Whether
a file can be read is told when it is, with its reason.
"""
