"""Rows of several encoders side by side: a video's, and what is known of how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.store.schema import StoreMetadata
from tspcli.store.video_features import VideoFeatures


class JoinedFeatures(VideoFeatures):
    """The rows of one video from several encoders, side by side; attributes are the first's.

    Where they differ in length, rows end with the shortest.
    """

    def __init__(self, videos: Sequence[VideoFeatures]) -> None:
        """Join videos whose rows lie at the same times."""
        first = videos[0]
        super().__init__(
            first.key,
            first.dataset,
            first.path,
            sampling=first.own_sampling,
            fallback=first.sampling,
        )
        self._videos = list(videos)

    @cached_property
    def rows(self) -> npt.NDArray[np.float32]:
        """The features, shape (N, D1 + D2 + …), float32."""
        return self._beside(video.rows for video in self._videos)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start`` to ``stop`` only."""
        stop = min(stop, self.n_rows)
        return self._beside(video.read_rows(start, stop) for video in self._videos)

    @property
    def n_rows(self) -> int:
        """N, the number of clips."""
        return min(video.n_rows for video in self._videos)

    @property
    def dim(self) -> int:
        """D, the width of a row."""
        return sum(video.dim for video in self._videos)

    def checked_rows(self) -> npt.NDArray[np.float32]:
        """:attr:`rows`, after those of each encoder were compared with their checksum."""
        return self._beside(video.checked_rows() for video in self._videos)

    def checked_blocks(self, n_rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """The rows, ``n_rows`` at a time; each encoder's are compared with their checksum."""
        left = self.n_rows
        for blocks in zip(*(video.checked_blocks(n_rows) for video in self._videos), strict=False):
            yield self._beside(blocks)[:left]
            left -= n_rows

    def verify(self) -> bool | None:
        """Whether all are as they were written; None if a checksum is missing."""
        found = [video.verify() for video in self._videos]
        return False if False in found else None if None in found else True

    def require_indexed(self) -> None:
        """Raise unless each encoder's checksum is the one in the index of its file."""
        for video in self._videos:
            video.require_indexed()

    def _beside(self, several: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        found = list(several)
        n_rows = min(map(len, found))
        return np.concatenate([rows[:n_rows] for rows in found], axis=1)


def joined_metadata(first: StoreMetadata, second: StoreMetadata) -> StoreMetadata:
    """The provenance of rows of two encoders, side by side: ``r3d_18 + i3d``."""

    def both(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
        one, other = a.get(name), b.get(name)
        if isinstance(one, str) and isinstance(other, str):
            return f"{one} + {other}"
        return [one, other]

    settings = {
        name: both(name, first.settings, second.settings)
        for name in sorted({*first.settings, *second.settings} - {"sampling"})
    }
    settings["sampling"] = first.settings["sampling"]
    labels = {
        name: both(name, first.labels, second.labels)
        for name in sorted({*first.labels, *second.labels})
    }
    return StoreMetadata(settings, labels, first.tool_version)
