"""Clip features of untrimmed videos: extraction, temporally-sensitive pretraining, localization.

>>> from tspcli import extract, load_encoder, open_store     # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tspcli.encoders import load_encoder
    from tspcli.extraction import extract
    from tspcli.store import open_store as open_store

from tspcli.core.version import __version__

_PUBLIC = {
    "extract": "tspcli.extraction",
    "load_encoder": "tspcli.encoders",
    "open_store": "tspcli.store",
}
__all__ = ["__version__", "extract", "load_encoder", "open_store"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    """Import the heavy packages only when something of theirs is asked for."""
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
