"""Decide on every name, duration and number of rows of an export, and read the rows.

Everything is decided and checked before anything is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tspcli.annotations import AnnotationSet
from tspcli.annotations.data_sets import DataSet
from tspcli.annotations.dialects import DATA_SETS, data_set_of
from tspcli.core.text import counted
from tspcli.core.video_names import pair_names
from tspcli.errors import ExportError, UsageError
from tspcli.exports.export_options import ExportOptions, ExportRequest
from tspcli.exports.export_plan import ExportPlan, PlannedVideo, Resample
from tspcli.exports.naming import check_file_name, companions_of, exported_names, reader_prefix
from tspcli.exports.target import Array, Target
from tspcli.exports.toolkit import notes_on, original_rate, usable_segments
from tspcli.sampling import resampling
from tspcli.sampling.resampling import FloatArray, Taps
from tspcli.store.schema import exported_attributes
from tspcli.store.store_set import SourceVideo, StoreSet
from tspcli.store.video_features import VideoFeatures

MOST_ROWS = 500_000
"""Rows of one video, which is in memory as a whole: 4.6 hours at 30 rows per second, 1 GB at width
512."""

_MAX_HALF = 65504.0
_SHOWN = 3


def make_plan(
    target: Target, request: ExportRequest, sources: StoreSet, annotations: AnnotationSet | None
) -> ExportPlan:
    """Decide on every name, duration and number of rows of an export, and check them.

    Raises:
        ExportError: If the features cannot be written in that form.
        UsageError: If an option has no meaning for the target.
        AnnotationError: If annotations contradict each other or lack what the reader needs.
        StoreError: If a store cannot be read.
    """
    keys = [video.key for video in sources.videos]
    data_set = _data_set(request.options.data_set, keys)
    options = target.resolve(request.options, data_set)
    annotated = annotations.videos if annotations else {}
    videos: list[PlannedVideo] = []
    faults: Counter[str] = Counter()
    has_actions = annotations is not None and any(annotations.of_kind("actions"))
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
        if has_actions and video.annotated is not None:
            kept = usable_segments(video.annotated.segments, video.duration_s, faults)
            video = replace(video, annotated=replace(video.annotated, segments=kept))
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
        sources.metadata if sources.is_described else None,
        lambda video: _extra(sources, video),
    )
    plan.notes += sources.notes
    plan.notes += annotations.notes if annotations else []
    plan.notes += notes_on(faults, "segment")
    _check_missing(plan, options)
    _note_unannotated(plan)
    if target.trains and options.missing != "error":
        _note_absent_subsets(plan)
    target.check(plan)
    return plan


def _data_set(name: str | None, keys: list[str]) -> DataSet:
    if name is not None and name not in DATA_SETS:
        raise UsageError(
            f"There is no data set {name!r}; the data sets are {', '.join(DATA_SETS)}.",
            option="--data-set",
            value=name,
        )
    return data_set_of(keys) if name is None else DATA_SETS[name]


def _extra(sources: StoreSet, video: PlannedVideo) -> dict[str, Any]:
    return exported_attributes(sources[video.source.key].attrs)


def _missing(videos: list[PlannedVideo], annotations: AnnotationSet | None) -> list[str]:
    """Annotated videos without features, by their names in the reader's annotations."""
    if annotations is None:
        return []
    found = {v.annotated_as: v.annotation_name for v in videos if v.annotated_as is not None}
    if not found:
        raise ExportError(
            f"No exported video is in the annotations. The stores have "
            f"{_some([video.source.key for video in videos])}; the annotations have "
            f"{_some(sorted(annotations.videos))}.",
            remedy="Names are compared with and without v_.",
            option="--annotations",
        )
    # Renamed as most of the others are.
    ways = Counter(_way(theirs, readers) for theirs, readers in found.items())
    add, strip = ways.most_common(1)[0][0]
    missing = [name for name in sorted(annotations.videos) if name not in found]
    return [
        (add if not name.startswith(add) else "") + name.removeprefix(strip) for name in missing
    ]


def _way(name: str, other: str) -> tuple[str, str]:
    """The prefixes to add to a name and to strip from it to make it the other."""
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
            "--missing list to also list them in missing_files.txt.",
            option="--missing",
            videos=plan.missing,
        )
    for name in plan.missing:
        if options.missing == "list" and ("\n" in name or "\r" in name):
            raise ExportError(
                f"{name!r} does not fit into a list of one name per line.", video=name
            )
    plan.notes.append(
        f"Left out: {counted(len(plan.missing), 'annotated video')} without features (the first: "
        f"{plan.missing[0]!r})."
    )


def _note_unannotated(plan: ExportPlan) -> None:
    if count := plan.n_unannotated:
        first = next(video.source.key for video in plan.videos if video.annotated is None)
        subject = f"{counted(count, 'exported video')} {'is' if count == 1 else 'are'}"
        plan.notes.append(
            f"{subject} not annotated (the first: {first!r}): the features are written, but the "
            "annotation files do not list them."
        )


def _note_absent_subsets(plan: ExportPlan) -> None:
    """Note subsets that are missing, because readers look for all of them in one place."""
    if plan.annotations is None:
        return
    present = {video.annotated.subset for video in plan.videos if video.annotated}
    for subset in ("training", "validation"):
        annotated = any(video.subset == subset for video in plan.annotations.videos.values())
        if annotated and subset not in present:
            plan.notes.append(
                f"No {subset} video is exported, although some are annotated. Readers look for all "
                "subsets in one place, so give the stores of all of them."
            )


def plan_rows(
    video: PlannedVideo, options: ExportOptions, original_rate: float | None
) -> PlannedVideo:
    """Decide how a video's rows become the exported ones.

    Args:
        video: The video with its names and span.
        options: The choices.
        original_rate: Frame rate of the original video, if known.

    Raises:
        ExportError: If ``centers`` is to spread rows over an unknown duration, the original frame
            rate is needed but unknown, or there would be more than :data:`MOST_ROWS` rows.
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
            f"The original frame rate of {source.key!r} is unknown.",
            remedy="Give G-TAD's val_Annotation.csv and test_Annotation.csv as --annotations, "
            "or --row-rate with a number.",
            video=source.key,
            option="--row-rate",
        )
    # The video's own duration counts here, because its rows stand for its frames.
    if source.follows_at(1 / rate, first_s=0.0):
        return replace(video, rate=rate)
    duration = source.duration_s or video.duration_s or source.covered_s
    length = _bounded(duration * rate, f"--row-rate {options.row_rate}", video)

    def taps() -> Taps:
        if options.resize == "centers":
            return _at_times(source, np.arange(length) / rate)
        return resampling.BY_LENGTH[options.resize or "linear"](source.n_rows, length)

    return replace(video, resample=Resample(length, taps), rate=rate)


def _on_grid(video: PlannedVideo, grid_s: float) -> PlannedVideo:
    source = video.source
    if source.follows_at(grid_s, first_s=grid_s / 2):
        return replace(video, rate=1 / grid_s)
    if source.own_times_s is not None:
        raise ExportError(
            f"The rows of {source.key!r} are not evenly spaced in time, so their means "
            "over cells are not those of their seconds.",
            remedy="Extract at a fixed frame rate, or use --length with --resize centers.",
            video=source.key,
            option="--grid-seconds",
        )
    # Rounded: a reader that spreads the rows evenly over the duration is then off by at most half a
    # cell at the end.
    n_cells = _bounded(video.length_s / grid_s, f"--grid-seconds {grid_s:g}", video)

    def taps() -> Taps:
        return resampling.cell_means(source.n_rows, source.first_s, source.step_s, grid_s, n_cells)

    return replace(video, resample=Resample(n_cells, taps), rate=1 / grid_s)


def _bounded(count: float, option: str, video: PlannedVideo) -> int:
    """A number of rows, rounded; one at least."""
    if not count <= MOST_ROWS:
        raise ExportError(
            f"{option} makes {count:.3g} rows of {video.source.key!r}; the limit is {MOST_ROWS:,}.",
            video=video.source.key,
            option=option.split()[0],
        )
    return max(1, round(count))


def _to_length(video: PlannedVideo, length: int, resize: str) -> Callable[[], Taps]:
    source, span_s = video.source, video.span_s
    if resize != "centers":
        return lambda: resampling.BY_LENGTH[resize](source.n_rows, length)
    if span_s is None:
        raise ExportError(
            f"--resize centers spreads rows over the whole video, but the duration of "
            f"{source.key!r} is unknown.",
            remedy="Add --annotations with durations: the reader's annotations, or the metadata "
            "table of official TSP.",
            video=source.key,
            option="--resize",
        )

    def taps() -> Taps:
        return _at_times(source, resampling.bin_centers_s(length, span_s))

    return taps


def _at_times(source: SourceVideo, times_s: FloatArray) -> Taps:
    """Linear interpolation between the rows' centres at given seconds."""
    if source.own_times_s is None:
        return resampling.centers(source.n_rows, source.first_s, source.step_s, times_s)
    positions = np.interp(times_s, source.centers_s, np.arange(source.n_rows))
    return resampling.interpolate_at(source.n_rows, positions)


def read_rows(video: PlannedVideo, features: VideoFeatures, width: int, dtype: str) -> Array:
    """Read one video's rows in their exported form, shape (n_rows, width).

    Raises:
        ExportError: If a value does not fit into half precision.
        StoreError: If the rows cannot be read, or do not match their checksum.
    """
    rows: Array = features.checked_rows()
    if rows.shape[0] != video.source.n_rows:
        raise ExportError(f"{features.key!r} changed during the export.", video=features.key)
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
                video=features.key,
                option="--dtype",
            )
    return np.ascontiguousarray(rows, dtype=dtype)
