"""Moments that resemble an example: spans of stored rows, found in all videos at once.

A moment is as many consecutive rows as the example has. Rows are compared without the mean of all
rows, which encoders add to everything, and scaled to length 1; a moment's score is the cosine of
its rows with the example's mean row, averaged over its rows. docs/notes/moments.md has what was
measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tspcli.errors import StoreMismatchError, UsageError
from tspcli.sampling.resampling import FloatArray
from tspcli.store.store import FeatureStore
from tspcli.store.video_features import VideoFeatures

MEMORY_BYTES = 4 << 30
"""How much the rows of all searched stores may take; rows beyond it are read at every search."""

_BLOCK_ROWS = 1 << 15
_MEAN_ROWS = 200_000


class Span(NamedTuple):
    """A stretch of a video.

    Attributes:
        key: The video.
        start_s: Start in seconds after the first frame.
        end_s: End.
    """

    key: str
    start_s: float
    end_s: float


class Moment(NamedTuple):
    """A stretch that was found.

    Attributes:
        store: Index of its store.
        key: The video.
        start_s: Start in seconds after the first frame: where the first row's share begins.
        end_s: End.
        score: Mean cosine with the example, at most 1.
    """

    store: int
    key: str
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class _Video:
    """Where a video's rows are among all rows of its store, and the seconds between two."""

    key: str
    first: int
    n_rows: int
    step_s: float


def rows_of_span(video: VideoFeatures, span: Span) -> tuple[int, int]:
    """The rows that stand for a stretch: those whose clips' centres it holds, at least the nearest.

    Returns:
        First row, and one past the last.

    Raises:
        UsageError: If the stretch is empty or lies outside the video's rows.
    """
    centers = video.center_s
    if not span.start_s < span.end_s:
        raise UsageError(
            f"{span.start_s:g}-{span.end_s:g} ends before it starts.",
            value=(span.start_s, span.end_s),
        )
    starts, ends = video.start_s, video.end_s
    if not len(centers) or span.end_s <= starts[0] or span.start_s >= ends[-1]:
        lasts = f"rows from {starts[0]:.1f} to {ends[-1]:.1f} s" if len(centers) else "none"
        raise UsageError(
            f"{span.key!r} has no rows at {span.start_s:g}-{span.end_s:g} s; it has {lasts}.",
            value=(span.start_s, span.end_s),
        )
    first, last = np.searchsorted(centers, [span.start_s, span.end_s], side="left")
    if last > first:
        return int(first), int(last)
    nearest = int(np.abs(centers - (span.start_s + span.end_s) / 2).argmin())
    return nearest, nearest + 1


class MomentIndex:
    """The rows of stores of one encoder, ready to be searched.

    Rows stay in memory up to a limit; those of further videos are read again at every search.

    Attributes:
        stores: The stores.
        n_rows: Rows of all videos.
        n_resident: Those of them that are held in memory.
    """

    def __init__(self, stores: Sequence[FeatureStore], *, memory_bytes: int = MEMORY_BYTES) -> None:
        """Read the rows.

        Args:
            stores: Stores of one encoder; samplings may differ.
            memory_bytes: What the rows may take.

        Raises:
            StoreMismatchError: If widths or weights differ.
            StoreError: If rows cannot be read, or are not those that were written.
        """
        self.stores = list(stores)
        _require_one_encoder(self.stores)
        self._videos = [list(_videos(store)) for store in self.stores]
        self.n_rows = sum(v.n_rows for videos in self._videos for v in videos)
        self._mean = self._mean_row()
        self._resident: list[FloatArray] = []
        left = memory_bytes // (4 * max(1, len(self._mean)))
        for store, videos in zip(self.stores, self._videos, strict=True):
            kept = _n_fitting(videos, left)
            rows = np.empty((kept, len(self._mean)), dtype=np.float32)
            for video in videos:
                if video.first + video.n_rows > kept:
                    break
                own = rows[video.first : video.first + video.n_rows]
                own[:] = self._prepared(store[video.key].checked_rows())
            self._resident.append(rows)
            left -= kept
        self.n_resident = sum(map(len, self._resident))

    def search(
        self,
        like: Span,
        *,
        store: int = 0,
        among: Sequence[int] | None = None,
        top: int = 20,
        min_gap_s: float = 0.0,
    ) -> list[Moment]:
        """The moments most like an example, best first; the example itself is left out.

        Args:
            like: The example.
            store: Index of its store.
            among: Indices of the stores to search; all if None.
            top: The most moments to return.
            min_gap_s: The least time between two moments of a video, and between a moment and the
                example; 0 keeps them from overlapping.

        Raises:
            UsageError: If the example has no rows.
        """
        video = self.stores[store][like.key]
        first, last = rows_of_span(video, like)
        example = self._prepared(video.read_rows(first, last)).mean(axis=0)
        norm = float(np.linalg.norm(example))
        example = (example / norm if norm else example).astype(np.float32)
        duration_s = (last - first) * _step_s(video)
        found: list[Moment] = []
        for number in range(len(self.stores)) if among is None else among:
            held = (like.key, first, last) if number == store else None
            found += self._search_store(number, example, duration_s, held, top, min_gap_s)
        found.sort(key=lambda moment: -moment.score)
        return found[:top]

    def _search_store(
        self,
        number: int,
        example: FloatArray,
        duration_s: float,
        held: tuple[str, int, int] | None,
        top: int,
        min_gap_s: float,
    ) -> list[Moment]:
        cosines = self._cosines(number, example)
        # Videos whose rows have one distance in time, and so spans of one number of rows.
        rhythms: dict[float, list[_Video]] = {}
        for video in self._videos[number]:
            rhythms.setdefault(round(video.step_s, 6), []).append(video)
        found = []
        for step_s, videos in rhythms.items():
            length = max(1, round(duration_s / step_s))
            gap = math.ceil(min_gap_s / step_s - 1e-9)
            for video, row, score in _best_spans(cosines, videos, length, gap, top, held):
                # A row stands for the time up to the middle between it and its neighbours.
                centers = self.stores[number][video.key].center_s
                start_s = max(0.0, float(centers[row]) - step_s / 2)
                end_s = float(centers[row + length - 1]) + step_s / 2
                found.append(Moment(number, video.key, start_s, end_s, score))
        return found

    def _cosines(self, number: int, example: FloatArray) -> FloatArray:
        """The cosine of every row of a store with the example, shape (N,)."""
        resident, videos = self._resident[number], self._videos[number]
        cosines = np.empty(sum(video.n_rows for video in videos), dtype=np.float32)
        np.matmul(resident, example, out=cosines[: len(resident)])
        for video in videos:
            if video.first < len(resident):
                continue
            features = self.stores[number][video.key]
            for start in range(0, video.n_rows, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, video.n_rows)
                rows = self._prepared(features.read_rows(start, stop))
                cosines[video.first + start : video.first + stop] = rows @ example
        return cosines

    def _prepared(self, rows: FloatArray) -> FloatArray:
        """Rows without the mean, scaled to length 1; one that is not finite becomes zeros."""
        rows = rows - self._mean
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        finite = np.isfinite(lengths)
        rows /= np.where(finite & (lengths > 0), lengths, 1)[:, None]
        rows[~finite] = 0
        return rows

    def _mean_row(self) -> FloatArray:
        """The mean of all rows, or of evenly spread ones where there are very many."""
        total, count = None, 0
        share = max(1, -(-self.n_rows // _MEAN_ROWS))
        for store, videos in zip(self.stores, self._videos, strict=True):
            for video in videos:
                for start in range(0, video.n_rows, _BLOCK_ROWS):
                    stop = min(start + max(1, _BLOCK_ROWS // share), video.n_rows)
                    rows = store[video.key].read_rows(start, stop)
                    rows = rows[np.isfinite(rows).all(axis=1)]
                    summed = rows.sum(axis=0, dtype=np.float64)
                    total, count = summed if total is None else total + summed, count + len(rows)
        if total is None:
            return np.zeros(0, dtype=np.float32)
        return np.asarray(total / max(1, count), dtype=np.float32)


def _videos(store: FeatureStore) -> Iterator[_Video]:
    first = 0
    for key in store:
        features = store[key]
        if features.n_rows:
            yield _Video(key, first, features.n_rows, _step_s(features))
            first += features.n_rows


def _step_s(video: VideoFeatures) -> float:
    """Seconds from one row to the next; of a single row, those of its clip."""
    if video.n_rows < 2:
        return float(video.end_s[0] - video.start_s[0])
    centers = video.center_s
    return float(centers[-1] - centers[0]) / (video.n_rows - 1)


def _best_spans(
    cosines: FloatArray,
    videos: Sequence[_Video],
    length: int,
    gap: int,
    top: int,
    held: tuple[str, int, int] | None,
) -> Iterator[tuple[_Video, int, float]]:
    """The best spans of ``length`` rows that keep ``gap`` rows apart: video, first row, score."""
    totals = np.concatenate([[0.0], np.cumsum(cosines, dtype=np.float64)])
    starts = [np.arange(v.first, v.first + v.n_rows - length + 1) for v in videos]
    owner = np.repeat(np.arange(len(videos)), [len(own) for own in starts])
    start = np.concatenate(starts)
    scores = (totals[start + length] - totals[start]) / length
    taken: dict[str, list[int]] = {}
    if held is not None:
        key, first, last = held
        for video, own in zip(videos, starts, strict=True):
            if video.key == key and len(own):
                near = (own < video.first + last + gap) & (own + length > video.first + first - gap)
                scores[np.isin(start, own[near])] = -np.inf
    n_found, n_tried, n_sorted = 0, 0, 0
    order = np.zeros(0, dtype=np.int64)
    while n_found < top and n_tried < len(scores):
        if n_tried == n_sorted:
            # Neighbours of a good span are good, too, and all but one of them are suppressed.
            n_sorted = min(len(scores), max(4 * n_sorted, 4 * top * (length + gap)))
            best = np.argpartition(-scores, n_sorted - 1)[:n_sorted]
            order = best[np.lexsort((best, -scores[best]))]
        chosen = order[n_tried]
        n_tried += 1
        if not np.isfinite(scores[chosen]):
            return
        video = videos[owner[chosen]]
        row = int(start[chosen]) - video.first
        others = taken.setdefault(video.key, [])
        if all(abs(row - other) >= length + gap for other in others):
            others.append(row)
            n_found += 1
            yield video, row, float(scores[chosen])


def _n_fitting(videos: Sequence[_Video], most_rows: int) -> int:
    """Rows of the videos that come first and fit as a whole."""
    ends = (video.first + video.n_rows for video in videos)
    return max((end for end in ends if end <= most_rows), default=0)


def _require_one_encoder(stores: Sequence[FeatureStore]) -> None:
    """Refuse stores whose rows do not mean the same; how videos were sampled may differ."""
    described = [store for store in stores if store.metadata.settings]
    for store in described[1:]:
        first = described[0]
        ours, theirs = (
            [s.metadata.settings.get(name) for name in ("backbone", "weights_sha256")]
            for s in (store, first)
        )
        if ours != theirs:
            raise StoreMismatchError(
                f"{first.path} and {store.path} hold features of different encoders "
                f"({first.metadata.weights} and {store.metadata.weights}), which cannot be "
                "compared.",
                path=store.path,
            )
    widths = {store[key].dim: store for store in stores for key in list(store)[:1]}
    if len(widths) > 1:
        (one, first), (other, second) = list(widths.items())[:2]
        raise StoreMismatchError(
            f"The rows of {first.path} have width {one}, those of {second.path} {other}.",
            path=second.path,
        )
