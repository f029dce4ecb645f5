"""One video of a store: its rows, when they are, and whether they are as they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.errors import StoreError
from tspcli.sampling import Sampling
from tspcli.sampling.spec import as_rate
from tspcli.sampling.windows import Seconds
from tspcli.store.hdf5_values import plain_attributes
from tspcli.store.index import explain_read_errors
from tspcli.store.schema import VideoAttributes
from tspcli.store.store_writer import seal_checksum


class VideoFeatures:
    """The rows of one video together with their seconds. Rows are read when they are asked for.

    Attributes:
        key: The video.
        dataset: The HDF5 dataset, for copying rows without holding all of them.
        path: The file, which may be one that a store of links leads to.
    """

    def __init__(
        self,
        key: str,
        dataset: h5py.Dataset,
        path: str,
        *,
        sampling: Sampling | None = None,
        fallback: Sampling | None = None,
        indexed_checksum: str | None = None,
    ) -> None:
        """Called by :class:`FeatureStore`.

        Args:
            key: The video.
            dataset: Its rows.
            path: The file.
            sampling: The sampling that the file states for all its videos.
            fallback: The sampling where neither the file nor the dataset states one.
            indexed_checksum: The checksum in the file's index.
        """
        self.key = key
        self.dataset = dataset
        self.path = path
        self._sampling = sampling
        self._fallback = fallback
        self._indexed_checksum = indexed_checksum

    @cached_property
    def rows(self) -> npt.NDArray[np.float32]:
        """The features, shape (N, D), float32; row i belongs to clip i."""
        with self._reading("the rows"):
            return np.asarray(self.dataset[()], dtype=np.float32)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start`` to ``stop`` only, shape (stop - start, D)."""
        with self._reading("the rows"):
            return np.asarray(self.dataset[start:stop], dtype=np.float32)

    @property
    def n_rows(self) -> int:
        """N, the number of clips."""
        return int(self.dataset.shape[0])

    @property
    def dim(self) -> int:
        """D, the width of a feature."""
        return int(self.dataset.shape[1])

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """All attributes of the dataset, those of other programs included, as plain values."""
        with self._reading("the attributes"):
            return plain_attributes(self.dataset)

    @cached_property
    def attributes(self) -> VideoAttributes:
        """The attributes that this program knows, typed.

        Raises:
            StoreError: If one is not of its type.
        """
        with self._reading("the attributes"):
            return VideoAttributes.from_hdf5(self.attrs)

    @property
    def sampling(self) -> Sampling | None:
        """How the video was cut into clips, or None if unknown."""
        own = self.own_sampling
        return self._fallback if own is None else own

    @property
    def own_sampling(self) -> Sampling | None:
        """How the video was cut into clips according to the file itself.

        Of a store of native frame rates, with the rate of this video: the mean if it varies, in
        which case :attr:`start_s` and the other times know better.
        """
        if self._sampling is None or not self._sampling.is_native:
            return self.attributes.sampling if self._sampling is None else self._sampling
        rate = self.attributes.frame_rate
        return None if rate is None else self._sampling.at_rate(as_rate(rate, "frame rate"))

    @property
    def start_s(self) -> npt.NDArray[np.float64]:
        """Start of each row's clip in seconds after the video's first frame, shape (N,)."""
        return self._times_s[0]

    @property
    def center_s(self) -> npt.NDArray[np.float64]:
        """Centre of each row's clip in seconds after the video's first frame, shape (N,)."""
        if self._stored_times_s is not None:
            start_s, end_s = self._stored_times_s
            return (start_s + end_s) / 2
        return self.start_s + float(self._require_sampling().clip_duration_s) / 2

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """End of each row's clip in seconds after the video's first frame, shape (N,)."""
        return self._times_s[1]

    @property
    def has_series(self) -> bool:
        """Whether rows follow one another at one distance in time."""
        return self._stored_times_s is None

    @cached_property
    def _stored_times_s(self) -> tuple[Seconds, Seconds] | None:
        start_s, end_s = self.attributes.row_start_s, self.attributes.row_end_s
        if start_s is None or end_s is None:
            return None
        if {len(start_s), len(end_s)} != {self.dataset.shape[0]}:
            raise StoreError(
                f"{self.path}: {self.key!r} has {self.dataset.shape[0]} rows, but the times of "
                f"{len(start_s)}.",
                path=self.path,
                value=self.key,
            )
        times = np.array([start_s, end_s], np.float64)[:, : self.n_rows]
        return times[0], times[1]

    @property
    def _times_s(self) -> tuple[Seconds, Seconds]:
        if self._stored_times_s is not None:
            return self._stored_times_s
        sampling = self._require_sampling()
        start_s = np.arange(self.n_rows, dtype=np.float64) * float(sampling.stride_s)
        start_s += float(sampling.clip_start_s(0))
        return start_s, start_s + float(sampling.clip_duration_s)

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first frame to the end of the last one, or None if unknown."""
        return self.attributes.duration_s

    @property
    def source_fps(self) -> float | None:
        """Mean frame rate of the source video, or None if unknown."""
        return self.attributes.source_fps

    @property
    def warnings(self) -> list[str]:
        """What was unusual about this video."""
        return list(self.attributes.warnings or ())

    def checked_rows(self) -> npt.NDArray[np.float32]:
        """:attr:`rows`, after they were compared with their checksum, if there is one.

        Raises:
            StoreError: If they cannot be read, or they or the attributes are not those that were
                written.
        """
        rows = self.rows
        if self.verify() is False:
            raise self._altered()
        return rows

    def checked_blocks(self, n_rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """The rows, ``n_rows`` at a time; after the last block all are compared with the checksum.

        Raises:
            StoreError: As :meth:`checked_rows` does.
        """
        digest = hashlib.sha256()
        for start in range(0, self.n_rows, n_rows):
            rows = self.read_rows(start, min(start + n_rows, self.n_rows))
            digest.update(np.ascontiguousarray(rows, dtype="<f4").data)
            yield rows
        if self._matches(digest) is False:
            raise self._altered()

    def verify(self) -> bool | None:
        """Whether rows and attributes are as they were written; None if no checksum is stored."""
        try:
            if not self._checksums():
                return None
            rows = np.ascontiguousarray(self.rows, dtype="<f4")
        except StoreError:
            return False
        return self._matches(hashlib.sha256(rows.data))

    def require_indexed(self) -> None:
        """Raise unless the stored checksum is the one in the file's index; reads no rows.

        Raises:
            StoreError: If they differ, as in a video of an older version of the file.
        """
        if len(self._checksums()) > 1:
            raise self._altered()

    def _checksums(self) -> set[str]:
        """The stored checksums: one, unless the file is damaged."""
        stored = {self.attrs.get("checksum"), self._indexed_checksum}
        return {checksum for checksum in stored if checksum is not None}

    def _matches(self, rows_digest: Any) -> bool | None:
        stored = self._checksums()
        if not stored:
            return None
        try:
            return stored == {seal_checksum(rows_digest, self.attrs)}
        except (TypeError, ValueError):
            # Attributes of kinds that no run writes.
            return False

    def _altered(self) -> StoreError:
        return StoreError(
            f"{self.path}: the rows or the attributes of {self.key!r} are not those that were "
            "written: their checksum differs.",
            remedy=f"Save the intact videos with `tsp doctor {self.path} --repair`, and compute "
            "that video again.",
            path=self.path,
            value=self.key,
        )

    def _reading(self, what: str) -> AbstractContextManager[None]:
        return explain_read_errors(self.path, f"{what} of {self.key!r}", self.key)

    def _require_sampling(self) -> Sampling:
        sampling = self.sampling
        if sampling is None:
            raise StoreError(
                f"{self.path} does not state the times of the rows of {self.key!r}.",
                remedy="Give frame rate, stride and clip length; the features released with TSP "
                "have 15, 16 (THUMOS14: 1) and 16.",
                path=self.path,
                value=self.key,
            )
        return sampling
