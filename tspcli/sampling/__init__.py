"""Exact time and pixels: which frames make which clip, and how large they are."""

from __future__ import annotations

from tspcli.sampling.spec import Sampling

__all__ = ["Sampling"]
