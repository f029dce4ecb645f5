"""Finding a video in a store by what a user calls it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from tspcli.annotations.names import find_name, pair_names
from tspcli.errors import UsageError
from tspcli.features.resampling import FloatArray
from tspcli.features.store import FeatureStore, VideoFeatures
from tspcli.filenames import VIDEO_SUFFIXES

_SHOWN = 3


def find_video(store: FeatureStore, name: str) -> VideoFeatures:
    """The video called ``name``; see :func:`find_key`.

    Raises:
        UsageError: If there is none, with the nearest names.
    """
    return store[find_key(store, name, store.path)]


def find_key(store: Mapping[str, Any], name: str, path: Path) -> str:
    """The key of the video called ``name``.

    It may be called with or without the ``v_`` that the store's keys may carry, by the name or path
    of its file, and with the characters that keys write as ``%0A`` and the like.

    Raises:
        UsageError: If there is none, with the nearest names.
    """
    spelled = {unquote(key, errors="surrogateescape"): key for key in store if "%" in key}
    names = [name, Path(name).name]
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        names.append(Path(name).stem)
    for other in names:
        if (key := find_name(other, {*store, *spelled})) is not None:
            return key if key in store else spelled[key]
    # An ending that is none of a video may belong to the name, so it is only suggested.
    near = [Path(name).stem] if Path(name).stem in store else []
    near += difflib.get_close_matches(names[-1], set(store) - set(near), n=_SHOWN, cutoff=0.5)
    shown = near or list(store)[:_SHOWN]
    raise UsageError(
        f"{path} has no video {name!r}.",
        remedy=f"It has {', '.join(map(repr, shown))}{' …' if len(store) > len(shown) else ''}.",
    )


def matching_keys(first: FeatureStore, second: FeatureStore) -> dict[str, str]:
    """The second store's keys by the first's, of the videos that both have.

    Stores with and without ``v_`` meet.

    Raises:
        AnnotationError: If it cannot be told which of two videos is meant.
    """
    return pair_names(list(first), set(second))


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a row of zeros stays zeros, one that is not finite becomes NaN."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    finite = np.isfinite(norms)
    divisors = np.where(finite & (norms > 0), norms, 1)
    scaled: FloatArray = np.where(finite, rows, np.nan) / divisors
    return scaled.astype(rows.dtype)
