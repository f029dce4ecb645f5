"""A page in the browser: videos, features, annotations and predictions on one clock."""

from __future__ import annotations
