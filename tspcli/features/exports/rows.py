"""From a store's rows to exported rows: resampling, padding, number type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tspcli.errors import ExportError
from tspcli.features import resampling
from tspcli.features.exports.options import ExportOptions
from tspcli.features.exports.target import Array, PlannedVideo, Resample
from tspcli.features.resampling import Taps
from tspcli.features.store import VideoFeatures

_MAX_HALF = 65504.0

MOST_ROWS = 500_000
"""Rows of one video, which is in memory as a whole: 4.6 hours at 30 rows a second, 1 GB of width
512."""


def plan_rows(
    video: PlannedVideo, options: ExportOptions, original_rate: float | None
) -> PlannedVideo:
    """Decide how a video's rows become the exported ones.

    Args:
        video: The video, its names and span already known.
        options: The choices.
        original_rate: Frames a second of the original video, if anyone tells.

    Raises:
        ExportError: If ``centers`` is to spread rows over a duration that nobody tells, the
            original frame rate is wanted and unknown, or there would be more than
            :data:`MOST_ROWS` rows.
    """
    if options.length is not None:
        length = _bounded(options.length, f"--length {options.length}", video)
        taps = _to_length(video, length, options.resize or "linear")
        return replace(video, resample=Resample(length, taps))
    if options.row_rate is not None:
        return _at_rate(video, options, original_rate)
    if options.grid_s is not None:
        return _on_grid(video, options.grid_s)
    return video


def _at_rate(
    video: PlannedVideo, options: ExportOptions, original_rate: float | None
) -> PlannedVideo:
    source = video.source
    rate = original_rate if options.row_rate == "original" else float(options.row_rate or 0)
    if rate is None:
        raise ExportError(
            f"Nobody tells the original frame rate of {source.key!r}.",
            remedy="Give G-TAD's val_Annotation.csv and test_Annotation.csv as --annotations, "
            "or --row-rate with a number.",
        )
    # The video's own length counts here: its rows stand for its frames.
    duration = source.duration_s or video.duration_s or source.covered_s
    length = _bounded(duration * rate, f"--row-rate {options.row_rate}", video)

    def taps() -> Taps:
        if options.resize == "centers":
            times = np.arange(length) / rate
            return resampling.centers(source.n_rows, source.first_s, source.step_s, times)
        return resampling.BY_LENGTH[options.resize or "linear"](source.n_rows, length)

    return replace(video, resample=Resample(length, taps), rate=rate)


def _on_grid(video: PlannedVideo, grid_s: float) -> PlannedVideo:
    source = video.source
    # Rounded, not cut or filled up: a reader that spreads the rows evenly over the duration is then
    # off by at most half a cell at the end.
    cells = (video.duration_s or source.covered_s) / grid_s
    n_cells = _bounded(cells, f"--grid-seconds {grid_s:g}", video)

    def taps() -> Taps:
        return resampling.cell_means(source.n_rows, source.first_s, source.step_s, grid_s, n_cells)

    return replace(video, resample=Resample(n_cells, taps), rate=1 / grid_s)


def _bounded(count: float, option: str, video: PlannedVideo) -> int:
    """A number of rows, rounded; one at least."""
    if not count <= MOST_ROWS:
        raise ExportError(
            f"{option} makes {count:.3g} rows of {video.source.key!r}; {MOST_ROWS:,} are the most.",
            remedy="Give another value.",
        )
    return max(1, round(count))


def _to_length(video: PlannedVideo, length: int, resize: str) -> Callable[[], Taps]:
    source, span_s = video.source, video.span_s
    if resize != "centers":
        return lambda: resampling.BY_LENGTH[resize](source.n_rows, length)
    if span_s is None:
        raise ExportError(
            f"--resize centers spreads rows over the whole video, and nobody tells how long "
            f"{source.key!r} is.",
            remedy="Add --annotations with durations: the reader's annotations, or the metadata "
            "table of official TSP.",
        )

    def taps() -> Taps:
        times = resampling.bin_centers_s(length, span_s)
        return resampling.centers(source.n_rows, source.first_s, source.step_s, times)

    return taps


def read_rows(video: PlannedVideo, features: VideoFeatures, width: int, dtype: str) -> Array:
    """Read one video and bring it to its exported form, shape (n_rows, width).

    Raises:
        ExportError: If a value does not fit into half precision.
        StoreError: If the rows cannot be read, or are not those that were written.
    """
    rows: Array = features.checked_rows()
    if rows.shape[0] != video.source.n_rows:
        raise ExportError(f"{features.key!r} changed while it was exported.")
    if video.resample is not None:
        rows = video.resample.taps().apply(rows)
    if width > rows.shape[1]:
        rows = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
    if dtype == "float16":
        largest = float(np.abs(rows[np.isfinite(rows)]).max(initial=0))
        if largest > _MAX_HALF:
            raise ExportError(
                f"{features.key!r} has a value of {largest:g}; half precision ends at 65504.",
                remedy="Use --dtype float32.",
            )
    return np.ascontiguousarray(rows, dtype=dtype)
