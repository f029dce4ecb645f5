"""What several targets need: writers, class ids, captions, subsets and shared warnings."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.annotations import AMBIGUOUS, Annotations, Segment
from tspcli.annotations.check import OUTSIDE_TOLERANCE_S
from tspcli.annotations.data_sets import DataSet
from tspcli.core.files import require_room
from tspcli.core.text import counted
from tspcli.core.version import __version__
from tspcli.errors import AnnotationError, ExportError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Writer
from tspcli.sampling.resampling import FloatArray
from tspcli.store.schema import sampling_attributes

# ruff: noqa: D102 (the methods are described in target.py)

ACTIVITYNET_CLASSES = 200
HDF5_SUFFIXES = (".h5", ".hdf5")
NO_CAPTIONS = "No captions of the exported videos were given, so none are written."

_COMMON_RATES = (30.0, 25.0, 24.0, 30000 / 1001, 24000 / 1001, 50.0, 60.0, 60000 / 1001, 15.0)
_LEAST_SPAN_S = 1.0

Streams = Callable[[Array], list[tuple[str, Array]]]


class NpyWriter(Writer):
    """One or more ``.npy`` files per video, from functions of its name and rows."""

    def __init__(self, folder: Path, streams: Streams, stem: Callable[[str], str] = str) -> None:
        self.folder = folder
        self._streams = streams
        self._stem = stem

    def write(self, video: PlannedVideo, rows: Array) -> None:
        for suffix, array in self._streams(rows):
            np.save(self.folder / f"{self._stem(video.name)}{suffix}.npy", array)


class NpzWriter(Writer):
    """One ``.npz`` file per video, with its rows under one key."""

    def __init__(self, folder: Path, suffix: str = "", *, key: str = "feats") -> None:
        self.folder = folder
        self._suffix = suffix
        self._key = key

    def write(self, video: PlannedVideo, rows: Array) -> None:
        arrays: dict[str, Any] = {self._key: rows}
        np.savez(self.folder / f"{video.name}{self._suffix}.npz", **arrays)


class CsvWriter(Writer):
    """One comma-separated file per video: a header ``f0,f1,…``, then rows; no index column.

    Nine significant digits restore every float32 exactly.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self._header = ",".join(f"f{i}" for i in range(width)) + "\n"
        self._line = ",".join(["%.9g"] * width) + "\n"

    def write(self, video: PlannedVideo, rows: Array) -> None:
        with open(self.folder / f"{video.name}.csv", "w", encoding="ascii") as file:
            file.write(self._header)
            for row in rows.tolist():
                file.write(self._line % tuple(row))


class Hdf5Writer(Writer):
    """One HDF5 file with one dataset per video at the root; everything else in attributes."""

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        describe: Callable[[PlannedVideo], Mapping[str, Any]],
        *,
        compressed: bool = False,
    ) -> None:
        self._path = path
        self._n_videos = 0
        require_room(path, 0, 0)
        self._file = h5py.File(path, "w")
        self._file.attrs.update(attributes)
        self._describe = describe
        self._compressed = compressed

    def write(self, video: PlannedVideo, rows: Array) -> None:
        options: dict[str, Any] = {}
        if self._compressed and rows.size:
            # As in the released files.
            options = {"chunks": True, "compression": "gzip", "compression_opts": 9}
        self._n_videos += 1
        require_room(self._path, rows.nbytes, self._n_videos)
        dataset = self._file.create_dataset(video.name, data=rows, **options)
        for name, value in self._describe(video).items():
            dataset.attrs[name] = value

    def close(self) -> None:
        self._file.close()


def one_stream(suffix: str = "") -> Streams:
    """A single array per video."""
    return lambda rows: [(suffix, rows)]


def names_file(out: Path) -> bool:
    """Whether an output path names an HDF5 file rather than a folder."""
    return out.suffix in HDF5_SUFFIXES


def open_hdf5(plan: ExportPlan, target: str, path: Path, *, compressed: bool = False) -> Hdf5Writer:
    """An HDF5 writer whose attributes state where the rows come from and their times."""
    attributes: dict[str, Any] = {}
    if plan.metadata is not None and not plan.resampled and plan.width == plan.dim:
        attributes.update(plan.metadata.to_hdf5())
    elif plan.metadata is not None:
        # Under other names: these rows are no longer at the seconds that a store promises.
        stored = plan.metadata.to_hdf5()
        attributes.update({f"source_{name}": value for name, value in stored.items()})
    attributes["export_target"] = target
    attributes["export_tool_version"] = __version__

    return Hdf5Writer(
        path, attributes, lambda video: video_attributes(video, plan), compressed=compressed
    )


def video_attributes(video: PlannedVideo, plan: ExportPlan) -> dict[str, Any]:
    """The attributes of one exported dataset."""
    source = video.source
    known: dict[str, Any] = {
        "duration_s": source.duration_s,
        "source_fps": source.source_fps,
        "source_frames": source.source_frames,
        "source_key": source.key,
    }
    if not plan.resampled:
        known.update(sampling_attributes(source.sampling))
        known.update(plan.extra_attributes(video))
    else:
        known["resize"] = plan.options.resize or "cell-means"
        if plan.options.length is not None:
            known["rows_span_s"] = video.span_s
        known["rows_per_second"] = video.rate
    return {name: value for name, value in known.items() if value is not None}


def usable_segments(
    segments: Iterable[Segment], duration_s: float | None, faults: Counter[str]
) -> tuple[Segment, ...]:
    """The segments without those that readers would turn into wrong targets.

    Segments that reach beyond the end are counted too, but kept: readers cut them, as they do with
    those of the released annotations.

    Args:
        segments: Actions or captions of one video.
        duration_s: Its duration, if it is known.
        faults: Counts of segments by fault, which are added to.
    """
    kept = []
    end_s = duration_s or math.inf
    for segment in segments:
        if segment.end_s < segment.start_s:
            faults["Left out, because they end before they start"] += 1
        elif segment.start_s < 0:
            faults["Left out, because they start before the video"] += 1
        elif segment.start_s > end_s:
            faults["Left out, because they start after the video's end"] += 1
        else:
            kept.append(segment)
            if segment.end_s > end_s + OUTSIDE_TOLERANCE_S:
                faults["Annotated beyond the video's end"] += 1
    return tuple(kept)


def notes_on(faults: Mapping[str, int], what: str) -> list[str]:
    """What :func:`usable_segments` counted, in words."""
    return [f"{fault}: {counted(count, what)}." for fault, count in faults.items()]


Captions = list[tuple[str, tuple[Segment, ...], float]]
"""(Name in the reader's annotations, captions, duration in seconds) of each video."""


def captions_by_name(
    plan: ExportPlan, name_of: Callable[[Annotations], str]
) -> dict[str, Captions]:
    """The captions of exported videos by the name of the file to write, without its ending.

    Captions that no reader can use are left out, as actions are, and noted once.

    Args:
        plan: The export.
        name_of: The name of the file to write for a given one.

    Raises:
        AnnotationError: If two given files would become one.
    """
    if plan.annotations is None:
        return {}
    exported = {video.annotated_as: video for video in plan.videos}
    found: dict[str, Captions] = {}
    given: dict[str, Annotations] = {}
    faults: Counter[str] = Counter()
    for file in plan.annotations.of_kind("captions"):
        chosen = []
        for own, video in plan.annotations.named(file).items():
            if own in exported:
                duration_s = video.duration_s or exported[own].duration_s
                captions = usable_segments(video.segments, duration_s, faults)
                # A video that was given without captions stays, as one without any.
                if captions or not video.segments:
                    entry = (exported[own].annotation_name, captions, video.duration_s or 0.0)
                    chosen.append(entry)
        if not chosen:
            continue
        name = name_of(file)
        if name in given:
            raise AnnotationError(
                f"{given[name].path} and {file.path} would both be written as {name}.",
                remedy="Join them into one file, or give each in an export of its own.",
                path=file.path,
                value=name,
            )
        given[name] = file
        found[name] = chosen
    plan.notes += [note for note in notes_on(faults, "caption") if note not in plan.notes]
    return found


def shell(path: Path, end: str = "") -> str:
    """A path as a word of a shell command, with ``end`` after it."""
    return shlex.quote(f"{path}{end}")


def annotation_switches(plan: ExportPlan) -> str:
    """The switches of G-TAD and BMN that name the written annotations."""
    return (
        f" \\\n    --video_info {shell(plan.annotation_file('video_info_new.csv'))} "
        f"--video_anno {shell(plan.annotation_file('anet_anno_action.json'))}"
    )


def note_cut_names(plan: ExportPlan) -> None:
    """Note names without ``v_`` for readers that cut two characters off names in their results."""
    bare = [video.name for video in plan.videos if not video.name.startswith("v_")]
    if bare:
        plan.notes.append(
            f"The reader cuts the first two characters off names in its results, but "
            f"{counted(len(bare), 'name')} (the first: {bare[0]!r}) lack v_ at the start."
        )


def note_other_durations(plan: ExportPlan) -> None:
    """Note videos whose rows end well before, or well after, the annotated end."""
    short: list[tuple[float, str]] = []
    long: list[tuple[float, str]] = []
    for video in plan.videos:
        if video.duration_s is None:
            continue
        gap = video.duration_s - video.source.covered_s
        clip_s = float(video.source.sampling.clip_duration_s)
        if abs(gap) > clip_s + 2 * video.source.step_s:
            (short if gap > 0 else long).append((abs(gap), video.name))
    for found, where in ((short, "end well before"), (long, "reach well beyond")):
        if found:
            gap, name = max(found)
            plan.notes.append(
                f"The features of {counted(len(found), 'video')} {where} the annotated end, by "
                f"{gap:.1f} s at most ({name!r}). Rows there are off by as much."
            )


def by_subset(plan: ExportPlan, reader: str) -> list[tuple[PlannedVideo, str, tuple[Segment, ...]]]:
    """The annotated videos with their subsets and actions, for readers that need subsets.

    Raises:
        AnnotationError: If the annotations give no subset for some of them.
    """
    annotated = [(video, video.annotated) for video in plan.videos if video.annotated is not None]
    unknown = [video.annotation_name for video, found in annotated if found.subset is None]
    if unknown:
        raise AnnotationError(
            f"The annotations give no subset for {counted(len(unknown), 'video')} (the first: "
            f"{unknown[0]!r}), but {reader} needs it.",
            remedy="Add a column `subset` to the table, a file that gives it, or --subset.",
            video=unknown[0],
            option="--subset",
        )
    return [(video, found.subset or "", _classed(found.segments)) for video, found in annotated]


def written_classes(plan: ExportPlan, reader: str) -> list[str]:
    """The classes of the annotated videos that are exported, sorted."""
    return sorted({s.label for _, _, segments in by_subset(plan, reader) for s in segments})


def _classed(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments with a class, which THUMOS14's ambiguous stretches do not have."""
    return tuple(segment for segment in segments if segment.label != AMBIGUOUS)


def label_ids(plan: ExportPlan, labels: Iterable[str], *, counts: bool) -> dict[str, int]:
    """Class ids of the labels that are written.

    They are the user's, else positions in the sorted list of all annotated classes. Where the
    reader counts classes and some have no exported video, only the written ones are numbered,
    because ids must be below that count.

    Args:
        plan: The export.
        labels: The labels that are written.
        counts: Whether the reader counts classes, rather than finding proposals.

    Raises:
        AnnotationError: If the user's list lacks a class.
    """
    used = sorted(set(labels))
    if plan.label_ids is not None:
        strange = [label for label in used if label not in plan.label_ids]
        if strange:
            raise AnnotationError(
                f"--label-ids lacks the class {strange[0]!r}.",
                option="--label-ids",
                value=strange[0],
            )
        return {label: plan.label_ids[label] for label in used}
    numbered = used if counts else all_classes(plan)
    numbers = {label: number for number, label in enumerate(numbered)}
    return {label: numbers[label] for label in used}


def all_classes(plan: ExportPlan) -> list[str]:
    """All annotated classes, sorted."""
    labels = plan.annotations.labels if plan.annotations else []
    return [label for label in labels if label != AMBIGUOUS]


def frame_classes(
    segments: Iterable[Segment], times_s: FloatArray
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The label of each segment, with the rows at whose time it lasts, shape (n_rows,)."""
    for segment in segments:
        yield segment.label, (segment.start_s <= times_s) & (times_s < segment.end_s)


def refuse_length(options: ExportOptions, reader: str, data_set: DataSet) -> None:
    """Refuse rows of a fixed number for a loader that computes times from a fixed stride.

    Raises:
        ExportError: If a length is given.
    """
    if options.length is not None:
        raise ExportError(
            f"{reader}'s loader for {data_set.title or data_set.name} computes times from a fixed "
            "stride, so rows cannot be resized.",
            remedy="Leave out --length.",
            option="--length",
            value=options.length,
        )


def note_few_classes(plan: ExportPlan, reader: str) -> None:
    """Note that a reader will ignore classes that are not those of the data set it is set up for.

    Names of one's own videos may look like ActivityNet's, whose detectors find proposals alone.
    """
    n_classes = len(all_classes(plan))
    if plan.data_set.name == "activitynet" and 0 < n_classes < ACTIVITYNET_CLASSES:
        plan.notes.append(
            f"{counted(n_classes, 'class', 'classes')} are annotated, but ActivityNet has "
            f"{ACTIVITYNET_CLASSES}. {reader}'s configuration for ActivityNet finds proposals and "
            "takes classes from external scores; for classes of your own use --data-set own."
        )


def original_rate(video: PlannedVideo) -> float | None:
    """The frame rate in which the annotations count, else that of the source video.

    Annotated seconds have one decimal and annotated frames are rounded down, so the longest times
    give the rate best; a common rate that fits all times is preferred.
    """
    pairs = [
        (seconds, frame)
        for segment in (video.annotated.segments if video.annotated else ())
        if segment.frames is not None
        for seconds, frame in zip((segment.start_s, segment.end_s), segment.frames, strict=True)
        if seconds >= _LEAST_SPAN_S
    ]
    if not pairs:
        annotated = video.annotated.fps if video.annotated else None
        return annotated or video.source.source_fps
    seconds, frame = max(pairs)
    slope = frame / seconds

    def misfit(rate: float) -> float:
        return max(abs(f + 0.5 - s * rate) for s, f in pairs)

    known = [*_COMMON_RATES, *([video.source.source_fps] if video.source.source_fps else [])]
    fitting = [rate for rate in known if misfit(rate) <= 1.0]
    return min(fitting, key=misfit) if fitting else slope
