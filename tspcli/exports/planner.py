"""From a store's rows to exported rows: resampling, padding, number type.

Thinking an export through: every name, duration and number of rows, and who is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tspcli.annotations import AnnotationSet
from tspcli.annotations.dialects import role_by_name
from tspcli.core.text import counted
from tspcli.core.video_names import pair_names
from tspcli.errors import ExportError
from tspcli.exports.export_options import DataSet, ExportOptions, ExportRequest
from tspcli.exports.naming import check_file_name, companions_of, exported_names, reader_prefix
from tspcli.exports.target import Array, ExportPlan, PlannedVideo, Resample, Target
from tspcli.exports.targets.gtad_thumos import original_rate
from tspcli.sampling import resampling
from tspcli.sampling.resampling import Taps
from tspcli.store.store import VideoFeatures
from tspcli.store.store_set import Sources

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


_SHOWN = 3
_STORE_ONLY = {
    "checksum",
    "warnings",
    "frame_rate",
    "clip_length",
    "stride",
    "grid_rate",
    "duration_s",
    "source_fps",
    "source_frames",
}


def make_plan(
    target: Target, request: ExportRequest, sources: Sources, annotations: AnnotationSet | None
) -> ExportPlan:
    """Decide every name, duration and number of rows of an export, and check them."""
    keys = [video.key for video in sources.videos]
    data_set = request.options.data_set or _data_set(keys)
    options = target.resolve(request.options, data_set)
    annotated = annotations.videos if annotations else {}
    videos: list[PlannedVideo] = []
    names = exported_names(keys, options.name_prefix, target.wants_prefix(data_set))
    prefix = reader_prefix(names.values(), options.name_prefix)
    pairs = pair_names(keys, annotated)
    for source in sources.videos:
        name = names[source.key]
        check_file_name(name, options.suffix)
        known = pairs.get(source.key)
        video = PlannedVideo(
            source,
            name,
            target.annotation_name(name, prefix),
            known,
            None if known is None else annotated[known],
        )
        video = replace(video, span_s=target.span_s(video, options))
        videos.append(plan_rows(video, options, original_rate(video)))
    is_file = target.is_file(options, request.out)
    plan = ExportPlan(
        options,
        data_set,
        sources.dim,
        videos,
        annotations,
        _missing(videos, annotations),
        sources.sampling,
        request.out,
        companions_of(request.out) if is_file else request.out,
        sources.stores[0].metadata if _agreed(sources) else None,
        lambda video: _extra(sources, video),
    )
    plan.notes += annotations.notes if annotations else []
    _check_missing(plan, options)
    _note_unannotated(plan)
    if target.trains and options.missing != "error":
        _note_absent_subsets(plan)
    target.check(plan)
    return plan


def _data_set(keys: list[str]) -> DataSet:
    thumos = all(role_by_name(key) is not None for key in keys)
    return "thumos14" if thumos else "activitynet"


def _agreed(sources: Sources) -> bool:
    """Whether every store says how it was made (that they agree is checked before)."""
    return all(store.metadata.settings for store in sources.stores)


def _extra(sources: Sources, video: PlannedVideo) -> dict[str, Any]:
    attributes = sources.features(video.source).attrs
    return {name: value for name, value in attributes.items() if name not in _STORE_ONLY}


def _missing(videos: list[PlannedVideo], annotations: AnnotationSet | None) -> list[str]:
    """Annotated videos without features, as the reader's annotations would name them."""
    if annotations is None:
        return []
    found = {v.annotated_as: v.annotation_name for v in videos if v.annotated_as is not None}
    if not found:
        raise ExportError(
            f"No exported video is in the annotations. The stores have "
            f"{_some([video.source.key for video in videos])}; the annotations have "
            f"{_some(sorted(annotations.videos))}.",
            remedy="Check that they belong together; names are compared with and without v_.",
        )
    # Renamed as most of the others are.
    ways = Counter(_way(theirs, readers) for theirs, readers in found.items())
    add, strip = ways.most_common(1)[0][0]
    missing = [name for name in sorted(annotations.videos) if name not in found]
    return [
        (add if not name.startswith(add) else "") + name.removeprefix(strip) for name in missing
    ]


def _way(name: str, other: str) -> tuple[str, str]:
    """What is put before a name, and what is taken from it, to make it the other."""
    if other.endswith(name):
        return other[: len(other) - len(name)], ""
    return ("", name[: len(name) - len(other)]) if name.endswith(other) else ("", "")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown + " …" * (len(names) > _SHOWN) if names else "no video"


def _check_missing(plan: ExportPlan, options: ExportOptions) -> None:
    if not plan.missing:
        return
    if options.missing == "error":
        shown = ", ".join(map(repr, plan.missing[:_SHOWN]))
        raise ExportError(
            f"{len(plan.missing)} of {len(plan.missing) + len(plan.videos) - plan.n_unannotated} "
            f"annotated videos have no features: {shown}"
            + (" …." if len(plan.missing) > _SHOWN else "."),
            remedy="Use --missing skip to leave them out of the written annotations, or "
            "--missing list to list them in missing_files.txt too.",
        )
    for name in plan.missing:
        if options.missing == "list" and ("\n" in name or "\r" in name):
            raise ExportError(f"{name!r} cannot stand in a list of one name a line.")
    plan.notes.append(
        f"Left out: {counted(len(plan.missing), 'annotated video')} without features (the first: "
        f"{plan.missing[0]!r})."
    )


def _note_unannotated(plan: ExportPlan) -> None:
    if count := plan.n_unannotated:
        first = next(video.source.key for video in plan.videos if video.annotated is None)
        subject = f"{counted(count, 'exported video')} {'is' if count == 1 else 'are'}"
        plan.notes.append(
            f"{subject} in no annotation (the first: {first!r}): the features are written, the "
            "annotation files do not list them."
        )


def _note_absent_subsets(plan: ExportPlan) -> None:
    """Readers look for all subsets in one place; half of the stores is easily forgotten."""
    if plan.annotations is None:
        return
    present = {video.annotated.subset for video in plan.videos if video.annotated}
    for subset in ("training", "validation"):
        told = any(video.subset == subset for video in plan.annotations.videos.values())
        if told and subset not in present:
            plan.notes.append(
                f"No {subset} video is exported, though the annotations have some: readers look "
                "for all subsets in one place, so give the stores of all of them."
            )
