"""Whether two runs left the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tspcli.store import open_store


def assert_same_store(path: Path, expected: Path) -> None:
    """Same videos, same rows bit for bit, same attributes, right checksums."""
    with open_store(path) as store, open_store(expected) as other:
        assert list(store) == list(other)
        for key, video in store.items():
            np.testing.assert_array_equal(video.rows, other[key].rows)
            assert video.attrs == other[key].attrs
            assert video.verify() is True


def leftovers(folder: Path) -> list[str]:
    """What a run has left in a folder beside stores and reports."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix != ".h5" and not path.name.endswith(".report.json")
    )
