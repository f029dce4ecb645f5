"""From a data set's annotations and its videos' durations to the tables that training reads."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

from tspcli.annotations.check import lies_outside, reaches_beyond
from tspcli.annotations.dialects import DIALECTS, Dialect, GapRule
from tspcli.annotations.segments import Annotations, Segment, write_label_mapping
from tspcli.annotations.training_tables import (
    GroundTruthRow,
    VideoEntry,
    background_segments,
    write_groundtruth,
    write_metadata,
)
from tspcli.core.files import replacing
from tspcli.core.text import counted
from tspcli.core.video_names import canonical, store_key
from tspcli.errors import AnnotationError, UsageError

LABELS_FILE = "action_label_mapping.json"
_MAX_SUBSET_BYTES = 100
_OWN = Dialect("", "", "annotations made by a program")
"""The defaults for annotations that were not read from a file."""


@dataclass
class SubsetReport:
    """One split: what was written and what was left out.

    Attributes:
        groundtruth: The table of segments.
        metadata: The table of videos.
        n_videos: Videos with at least one row.
        n_actions: Action rows.
        n_background: Background rows.
        missing: Annotated videos of this split whose duration is unknown.
        unannotated: Videos without any action, which get no row unless asked for.
        nested: Videos in which the two rules for background differ.
        n_beyond: Actions that reach beyond their video. They are written unchanged; training cuts
            them to the video.
        n_outside: Actions that lie completely outside their video. They are written unchanged;
            training drops them.
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
        subsets: The splits by name, such as ``train`` and ``valid``.
        skipped: How many of the source's rows were left out, by reason.
        dialect: The dialect of the annotations.
        min_gap_s: Shortest gap between actions, in seconds, that became a background row.
        gap_rule: How gaps became background rows.
        missing: Annotated videos whose duration is unknown and whose split is not given.
        unlisted: Videos without any action, of splits that hold nothing else and so have no tables.
    """

    labels: Path
    n_classes: int
    subsets: dict[str, SubsetReport]
    skipped: dict[str, int]
    dialect: str
    min_gap_s: float
    gap_rule: GapRule
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


def convert(
    annotations: Annotations,
    videos: Mapping[str, Sequence[VideoEntry]],
    out: str | Path,
    *,
    min_gap_s: float | None = None,
    gap_rule: GapRule | None = None,
    labels: Sequence[str] | None = None,
    include_unannotated: bool = False,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> ConversionReport:
    """Write ground-truth tables, metadata tables and the label mapping into a folder.

    Args:
        annotations: Actions, as :func:`~tspcli.annotations.read.read_actions` returns them.
        videos: Subset name to its videos. Annotations that give subsets decide on each video's
            own; the names here serve for the other videos.
        out: The folder. Each subset gets ``NAME_groundtruth.csv`` and ``NAME_metadata.csv``.
        min_gap_s: Shortest background row, in seconds; None for the dialect's default.
        gap_rule: As for :func:`~tspcli.annotations.training_tables.background_segments`; None for
            the dialect's default.
        labels: Class names in the order of their ids; by default the sorted names of all classes.
        include_unannotated: Take videos without any action as background from end to end.
        overwrite: Whether files of these names with other contents are replaced.
        inputs: Files that the arguments were read from; they are never replaced.

    Raises:
        AnnotationError: If no video is annotated, a label is not among ``labels``, or the folder
            holds other tables.
        UsageError: If ``min_gap_s`` is negative or not finite.
    """
    dialect = DIALECTS.get(annotations.dialect, _OWN)
    min_gap_s = dialect.min_gap_s if min_gap_s is None else min_gap_s
    gap_rule = gap_rule or dialect.gap_rule
    if not 0 <= min_gap_s < math.inf:
        raise UsageError(
            f"The shortest gap must be 0 s or longer, not {min_gap_s} s.",
            option="--min-gap",
            value=min_gap_s,
        )
    annotations = annotations.forward()
    names = list(labels) if labels is not None else annotations.labels()
    unknown = sorted(set(annotations.labels()) - set(names))
    if unknown:
        raise AnnotationError(
            f"The label mapping lacks the annotated class {unknown[0]!r}.", value=unknown[0]
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
    report = ConversionReport(
        out / LABELS_FILE,
        len(names),
        {},
        dict(annotations.skipped),
        annotations.dialect,
        min_gap_s,
        gap_rule,
    )
    splits = {split_of(annotations, name) for name in annotations}
    for subset in [
        name for name, (rows, _, _) in tables.items() if not rows and name not in splits
    ]:
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
        actions = [row for row in rows if row.label is not None]
        part.n_actions = len(actions)
        part.n_background = len(rows) - len(actions)
        part.n_videos = len({row.filename for row in rows})
        part.n_beyond = sum(map(reaches_beyond, actions))
        part.n_outside = sum(map(lies_outside, actions))
        writers[part.groundtruth] = partial(write_groundtruth, rows=rows)
        writers[part.metadata] = partial(write_metadata, videos=by_subset[subset])
        report.subsets[subset] = part
    _write_all(writers, overwrite, [*inputs, *([annotations.path] if annotations.path else [])])
    return report


def split_of(annotations: Annotations, name: str) -> str | None:
    """The split of an annotated video, such as ``train``, if its annotations give one."""
    subset = annotations[name].subset
    if subset is None:
        return None
    return DIALECTS.get(annotations.dialect, _OWN).splits.get(subset, subset)


def _nothing_annotated(
    annotations: Annotations,
    known: Mapping[str, str],
    videos: Mapping[str, Sequence[VideoEntry]],
) -> AnnotationError:
    """Why no video has a row: no name is annotated, or all of its annotations were left out."""
    files = [video for entries in videos.values() for video in entries]
    if not files:
        return AnnotationError(
            "There is no video whose duration is known.",
            remedy="Give a folder of readable videos, or a metadata table with rows.",
        )
    named = next((video for video in files if video.stem in known), None)
    if named is None:
        return AnnotationError(
            f"None of the videos is annotated: the videos have names like {files[0].filename!r}, "
            f"the annotations names like {next(iter(annotations), '')!r}.",
            video=files[0].stem,
        )
    left_out = "; ".join(
        f"{counted(count, 'row')}: {reason}" for reason, count in annotations.skipped.items()
    )
    return AnnotationError(
        f"None of the annotated videos has an action; {named.filename!r} is one of them.",
        remedy=f"Left out of the source: {left_out}."
        if left_out
        else "Use --include-unannotated to take them as background.",
        video=named.stem,
    )


def require_folder(out: Path) -> None:
    """Raise if a path cannot be a folder for tables.

    Raises:
        AnnotationError: If it is a file.
    """
    if out.exists() and not out.is_dir():
        raise AnnotationError(f"{out} is a file, not a folder.", path=out, option="--out")


def _write_all(
    writers: Mapping[Path, Callable[[Path], None]], overwrite: bool, inputs: Sequence[Path]
) -> None:
    """Write all files, or none if one of them may not be replaced.

    Raises:
        AnnotationError: If a file has other contents, before any is written.
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
                f"The output {target} is the input {source}.", path=target, option="--out"
            )
    if others and not overwrite:
        names = ", ".join(path.name for path in others)
        raise AnnotationError(
            f"{others[0].parent} holds other tables: {names}.",
            remedy="Use --overwrite to replace them.",
            path=others[0],
            option="--out",
        )
    for target, content in contents.items():
        with replacing(target) as aside:
            aside.write_bytes(content)


def _require_unique(videos: Mapping[str, Sequence[VideoEntry]]) -> None:
    seen: dict[str, str] = {}
    for entries in videos.values():
        for video in entries:
            name = canonical(video.stem)
            if name in seen:
                raise AnnotationError(
                    f"Two videos are called {video.stem!r} without their extension: "
                    f"{seen[name]} and {video.filename}.",
                    video=video.stem,
                )
            seen[name] = video.filename


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
            annotated = split_of(annotations, name) if name is not None else None
            assigned.setdefault(annotated or given, []).append(video)
    return assigned


def _require_file_name(subset: str) -> None:
    """Raise if the tables of a subset would lie outside the output folder.

    Raises:
        AnnotationError: With the subset.
    """
    if "\\" in subset or store_key(subset) != subset or len(subset.encode()) > _MAX_SUBSET_BYTES:
        raise AnnotationError(
            f"The subset {subset[:_MAX_SUBSET_BYTES]!r} cannot name a table.",
            remedy="Subsets in the annotations need short names without slashes.",
            value=subset,
        )


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
