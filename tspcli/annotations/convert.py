"""From a data set's annotations and its videos' durations to the tables that training reads."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import get_args

from tspcli.annotations.check import lies_outside, reaches_beyond
from tspcli.annotations.segments import Annotations, Segment, write_label_mapping
from tspcli.annotations.training_tables import (
    GapRule,
    GroundTruthRow,
    VideoEntry,
    background_segments,
    write_groundtruth,
    write_metadata,
)
from tspcli.core.files import replacing
from tspcli.core.text import counted
from tspcli.core.video_names import store_key
from tspcli.errors import AnnotationError, UsageError

LABELS_FILE = "action_label_mapping.json"
_MAX_SUBSET_BYTES = 100
SPLITS = {"training": "train", "validation": "valid", "testing": "test"}
"""What the tables of ActivityNet's subsets are called."""


@dataclass
class SubsetReport:
    """One split: what was written and what was left out.

    Attributes:
        groundtruth: The table of segments.
        metadata: The table of videos.
        n_videos: Videos with at least one row.
        n_actions: Action rows.
        n_background: Background rows.
        missing: Annotated videos of this split whose duration is not known.
        unannotated: Videos without any action, which get no row.
        nested: Videos in which the two rules for background differ.
        n_beyond: Actions that reach beyond their video. They are written as they are; training cuts
            them to the video.
        n_outside: Actions wholly outside their video. They are written; training drops them.
    """

    groundtruth: Path
    metadata: Path
    n_videos: int = 0
    n_actions: int = 0
    n_background: int = 0
    missing: list[str] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    n_beyond: int = 0
    n_outside: int = 0


@dataclass
class ConversionReport:
    """What :func:`convert` did.

    Attributes:
        labels: The label mapping's file.
        n_classes: How many classes it names.
        subsets: By name, such as ``train`` and ``valid``.
        skipped: Source rows left out, by reason.
        missing: Annotated videos whose duration is not known, where the annotations do not tell
            which split they belong to.
        unlisted: Videos without any action, of splits that hold nothing else and so have no tables.
    """

    labels: Path
    n_classes: int
    subsets: dict[str, SubsetReport]
    skipped: dict[str, int]
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


def convert(
    annotations: Annotations,
    videos: Mapping[str, Sequence[VideoEntry]],
    out: str | Path,
    *,
    min_gap_s: float,
    gap_rule: GapRule = "union",
    labels: Sequence[str] | None = None,
    include_unannotated: bool = False,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> ConversionReport:
    """Write ground-truth tables, metadata tables and the label mapping into a folder.

    Args:
        annotations: What a reader returned.
        videos: Subset name to its videos. Where the annotations tell subsets, each video goes to
            its own, whatever name it came under, and the names here serve for the others.
        out: The folder. For each subset ``NAME_groundtruth.csv`` and ``NAME_metadata.csv``.
        min_gap_s: Shortest background row, in seconds.
        gap_rule: See :func:`background_segments`.
        labels: Class names in the order of their ids; sorted names of all classes otherwise.
        include_unannotated: Take videos without any action as background from end to end.
        overwrite: Whether files of these names that hold something else are replaced.
        inputs: Files that the arguments were read from; they are never replaced.

    Raises:
        AnnotationError: If no video is annotated, a label is not among ``labels``, or the folder
            holds other tables.
    """
    if not 0 <= min_gap_s < math.inf:
        raise UsageError(f"A shortest gap of {min_gap_s} s is none.", remedy="Give 0 or more.")
    annotations = _without_reversed(annotations)
    names = list(labels) if labels is not None else annotations.labels()
    unknown = sorted(set(annotations.labels()) - set(names))
    if unknown:
        raise AnnotationError(
            f"The class {unknown[0]!r} is annotated, but the label mapping lacks it.",
            remedy="Give the mapping of this data set, or none to have it made.",
        )
    _require_unique(videos)
    known = annotations.pair([v.stem for entries in videos.values() for v in entries])
    by_subset = _assign(annotations, known, videos)
    tables = {
        subset: _rows(annotations, known, entries, min_gap_s, gap_rule, include_unannotated)
        for subset, entries in by_subset.items()
    }
    if not any(rows for rows, _, _ in tables.values()):
        raise _nothing_annotated(annotations, known, videos)
    out = Path(out)
    require_folder(out)
    report = ConversionReport(out / LABELS_FILE, len(names), {}, dict(annotations.skipped))
    told = {split_of(annotations, name) for name in annotations}
    for subset in [name for name, (rows, _, _) in tables.items() if not rows and name not in told]:
        report.unlisted += tables.pop(subset)[1]
    writers: dict[Path, Callable[[Path], None]] = {
        report.labels: lambda path: write_label_mapping(path, names)
    }
    present = set(known.values())
    missing = [
        name for name, video in annotations.items() if video.segments and name not in present
    ]
    report.missing = [name for name in missing if split_of(annotations, name) not in tables]
    for subset in tables:
        _require_file_name(subset)
    for subset, (rows, unannotated, nested) in tables.items():
        part = SubsetReport(out / f"{subset}_groundtruth.csv", out / f"{subset}_metadata.csv")
        part.unannotated, part.nested = unannotated, nested
        part.missing = [name for name in missing if split_of(annotations, name) == subset]
        part.n_actions = sum(row.label is not None for row in rows)
        part.n_background = len(rows) - part.n_actions
        part.n_videos = len({row.filename for row in rows})
        actions = [row for row in rows if row.label is not None]
        part.n_beyond = sum(map(reaches_beyond, actions))
        part.n_outside = sum(map(lies_outside, actions))
        writers[part.groundtruth] = partial(write_groundtruth, rows=rows)
        writers[part.metadata] = partial(write_metadata, videos=by_subset[subset])
        report.subsets[subset] = part
    _write_all(writers, overwrite, [*inputs, *([annotations.path] if annotations.path else [])])
    return report


def _nothing_annotated(
    annotations: Annotations,
    known: Mapping[str, str],
    videos: Mapping[str, Sequence[VideoEntry]],
) -> AnnotationError:
    """Why no video has a row: the names do not meet, or nothing is left of their annotations."""
    files = [video for entries in videos.values() for video in entries]
    if not files:
        return AnnotationError(
            "There is no video whose duration is known.",
            remedy="Give a folder of videos that can be read, or a metadata table with rows.",
        )
    named = next((video for video in files if video.stem in known), None)
    if named is None:
        return AnnotationError(
            "Not one video is annotated.",
            remedy=f"Videos are called like {files[0].filename!r}, annotated names like "
            f"{next(iter(annotations))!r}: they have to agree.",
        )
    left_out = "; ".join(
        f"{counted(count, 'row')}: {reason}" for reason, count in annotations.skipped.items()
    )
    return AnnotationError(
        f"Not one video has an action: {named.filename!r} is named, but without any.",
        remedy=f"Left out of the source: {left_out}."
        if left_out
        else "Name the videos that have actions, or --include-unannotated.",
    )


def require_folder(out: Path) -> None:
    """See that tables can be written into a folder.

    Raises:
        AnnotationError: If it is a file.
    """
    if out.exists() and not out.is_dir():
        raise AnnotationError(f"{out} is a file.", remedy="Give a folder as --out.")


def _without_reversed(annotations: Annotations) -> Annotations:
    """Without the segments that end before they start: of these no clip can be taken."""
    kept = annotations.chosen(lambda name, video: True)
    for name, video in annotations.items():
        segments = tuple(s for s in video.segments if s.end_s >= s.start_s)
        if len(segments) < len(video.segments):
            kept[name] = replace(video, segments=segments)
            kept.skipped["ends before it starts"] += len(video.segments) - len(segments)
    return kept


def _write_all(
    writers: Mapping[Path, Callable[[Path], None]], overwrite: bool, inputs: Sequence[Path]
) -> None:
    """Write files aside and rename them, but replace nothing that is not to be replaced.

    Raises:
        AnnotationError: If one holds something else, before any is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        contents: dict[Path, bytes] = {}
        for number, (target, write) in enumerate(writers.items()):
            made = Path(folder) / str(number)
            write(made)
            contents[target] = made.read_bytes()
    others = [p for p, content in contents.items() if p.exists() and p.read_bytes() != content]
    for target in others:
        source = next((path for path in inputs if path.exists() and path.samefile(target)), None)
        if source is not None:
            raise AnnotationError(
                f"The output {target} is the input {source}.", remedy="Give another --out."
            )
    if others and not overwrite:
        names = ", ".join(path.name for path in others)
        raise AnnotationError(
            f"{others[0].parent} holds other tables: {names}.",
            remedy="Give another --out, or --overwrite.",
        )
    for target, content in contents.items():
        with replacing(target) as aside:
            aside.write_bytes(content)


def _require_unique(videos: Mapping[str, Sequence[VideoEntry]]) -> None:
    seen: dict[str, str] = {}
    for entries in videos.values():
        for video in entries:
            if video.stem in seen:
                raise AnnotationError(
                    f"Two videos are called {video.stem!r} ({seen[video.stem]}, {video.filename}).",
                    remedy="Names without extension have to be unique; rename or remove one.",
                )
            seen[video.stem] = video.filename


def _assign(
    annotations: Annotations,
    known: Mapping[str, str],
    videos: Mapping[str, Sequence[VideoEntry]],
) -> dict[str, list[VideoEntry]]:
    """The videos of each split; ``known`` has the names under which they are annotated."""
    assigned: dict[str, list[VideoEntry]] = {}
    for given, entries in videos.items():
        for video in entries:
            name = known.get(video.stem)
            told = split_of(annotations, name) if name is not None else None
            assigned.setdefault(told or given, []).append(video)
    return assigned


def _require_file_name(subset: str) -> None:
    """Refuse a subset whose tables would lie elsewhere than in the output folder.

    Raises:
        AnnotationError: Naming it.
    """
    if "\\" in subset or store_key(subset) != subset or len(subset.encode()) > _MAX_SUBSET_BYTES:
        raise AnnotationError(
            f"The subset {subset[:_MAX_SUBSET_BYTES]!r} cannot name a table.",
            remedy="Give the subsets in the annotations short names without slashes.",
        )


def split_of(annotations: Annotations, name: str) -> str | None:
    """The split that an annotated video belongs to, such as ``train``, if that is told."""
    subset = annotations[name].subset
    if subset is None or annotations.dialect != "activitynet":
        return subset
    return SPLITS.get(subset, subset)


def _rows(
    annotations: Annotations,
    known: Mapping[str, str],
    videos: Sequence[VideoEntry],
    min_gap_s: float,
    gap_rule: GapRule,
    include_unannotated: bool,
) -> tuple[list[GroundTruthRow], list[str], list[str]]:
    actions: list[GroundTruthRow] = []
    background: list[GroundTruthRow] = []
    unannotated: list[str] = []
    nested: list[str] = []

    def row(name: str, start_s: float, end_s: float, label: str | None) -> GroundTruthRow:
        return GroundTruthRow(
            name.removeprefix("v_"),
            start_s,
            end_s,
            label,
            video.duration_s,
            video.filename,
            video.fps,
            video.n_frames,
        )

    for video in videos:
        name = known.get(video.stem)
        segments: Sequence[Segment] = annotations[name].segments if name is not None else ()
        if not segments:
            unannotated.append(video.filename)
            if not include_unannotated:
                continue
        name = name or video.stem
        gaps = {
            rule: background_segments(segments, video.duration_s, min_gap_s=min_gap_s, rule=rule)
            for rule in get_args(GapRule)
        }
        if gaps["union"] != gaps["official"]:
            nested.append(video.filename)
        actions += [row(name, s.start_s, s.end_s, s.label) for s in segments]
        background += [row(name, start_s, end_s, None) for start_s, end_s in gaps[gap_rule]]
    # The official tables have all actions first, then the background by name.
    background.sort(key=lambda r: (r.video_name, r.start_s))
    return actions + background, unannotated, nested
