"""Finding a video in a store by what a user calls it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from tspcli.errors import UsageError
from tspcli.features.annotations import canonical_id, shared_prefix
from tspcli.features.resampling import FloatArray
from tspcli.features.store import FeatureStore, VideoFeatures

_SHOWN = 3


def find_video(store: FeatureStore, name: str) -> VideoFeatures:
    """The video called ``name``, with or without the ``v_`` that the store's keys may carry.

    Raises:
        UsageError: If there is none, with the nearest names.
    """
    if name in store:
        return store[name]
    prefix = shared_prefix(store)
    for other in (prefix + name, canonical_id(name, "v_")):
        if other in store:
            return store[other]
    near = difflib.get_close_matches(name, list(store), n=_SHOWN, cutoff=0.5)
    shown = near or list(store)[:_SHOWN]
    raise UsageError(
        f"{store.path} has no video {name!r}.",
        remedy=f"It has {', '.join(map(repr, shown))}{' …' if len(store) > len(shown) else ''}.",
    )


def matching_keys(stores: Sequence[FeatureStore]) -> list[dict[str, str]]:
    """For each store its keys by canonical ID, so that stores with and without ``v_`` meet."""
    tables = []
    for store in stores:
        prefix = shared_prefix(store)
        tables.append({canonical_id(key, prefix): key for key in store})
    return tables


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a row of zeros stays zeros, one that is not finite becomes NaN."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    finite = np.isfinite(norms)
    divisors = np.where(finite & (norms > 0), norms, 1)
    scaled: FloatArray = np.where(finite, rows, np.nan) / divisors
    return scaled.astype(rows.dtype)
