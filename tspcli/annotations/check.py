"""Find what silently ruins a training in its ground-truth tables."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tspcli.annotations.training_tables import CLIP_S, GroundTruthRow
from tspcli.core.regions import REGION_CLASSES
from tspcli.errors import UsageError

Severity = Literal["error", "warning", "note"]

DURATION_TOLERANCE_S = 0.5
"""The largest difference between a table's duration and the file's that is no finding."""
OUTSIDE_TOLERANCE_S = 1.0
"""How far an action may reach beyond the video's end, as rounded times do."""
DUPLICATE_TIOU = 0.9
"""Two segments of one class with more overlap than this are taken to be one action."""


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one table.

    Attributes:
        kind: A stable name, such as ``outside-video``.
        severity: ``error`` if training would fail or be wrong, ``warning`` if it would probably
            suffer, ``note`` for a mere count.
        subset: The table.
        message: A sentence with the count.
        count: The number of occurrences.
        examples: Up to five of them, in words.
    """

    kind: str
    severity: Severity
    subset: str
    message: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChanceLevel:
    """The accuracy of a head on a table without looking at the clip, as a fraction of 1.

    Attributes:
        head: ``action`` or ``region``.
        n_clips: Clips on which the head is judged: ``clips_per_segment`` per segment kept.
        majority: Accuracy of always answering the most frequent class.
        uniform: Accuracy of guessing evenly.
    """

    head: str
    n_clips: int
    majority: float
    uniform: float


@dataclass
class CheckReport:
    """All findings and, for each table, the chance level of both heads."""

    findings: list[Finding] = field(default_factory=list)
    chance: dict[str, list[ChanceLevel]] = field(default_factory=dict)
    n_segments: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def usable_length_s(row: GroundTruthRow) -> float:
    """Seconds of a segment that lie inside its video."""
    return min(row.end_s, row.duration_s) - max(row.start_s, 0.0)


def check_groundtruth(
    tables: Mapping[str, Sequence[GroundTruthRow]],
    *,
    labels: Sequence[str] | None = None,
    videos: Mapping[str, Mapping[str, float | None]] | None = None,
    min_segment_s: float = float(CLIP_S),
    clips_per_segment: int = 5,
) -> CheckReport:
    """Check the tables of one training.

    Args:
        tables: ``train`` and ``valid``, or one of them.
        labels: Class names in the order of their ids, if a mapping exists.
        videos: For each table, the files that are there: name to duration in seconds, or to None if
            the file cannot be read.
        min_segment_s: Training drops segments whose part inside the video is shorter.
        clips_per_segment: Clips drawn per segment and epoch.

    Raises:
        UsageError: If ``min_segment_s`` is negative or not finite.
    """
    if not 0 <= min_segment_s < math.inf:
        raise UsageError(
            f"The shortest segment must be 0 s or longer, not {min_segment_s} s.",
            option="--clip-seconds",
            value=min_segment_s,
        )
    report = CheckReport()
    named = {row.filename for rows in tables.values() for row in rows}
    for subset, rows in tables.items():
        report.findings += _check_rows(subset, rows, min_segment_s)
        report.findings += _check_labels(subset, rows, labels, min_segment_s)
        if videos is not None and subset in videos:
            report.findings += _check_files(subset, rows, videos[subset], named)
        kept = [row for row in rows if usable_length_s(row) >= min_segment_s]
        report.n_segments[subset] = {
            region: sum(row.region == region for row in kept) for region in REGION_CLASSES
        }
        report.chance[subset] = chance_levels(kept, labels, clips_per_segment)
    if "train" in tables and "valid" in tables:
        report.findings += _check_split(tables["train"], tables["valid"], min_segment_s)
    order = {"error": 0, "warning": 1, "note": 2}
    report.findings.sort(key=lambda finding: order[finding.severity])
    return report


def chance_levels(
    rows: Sequence[GroundTruthRow], labels: Sequence[str] | None, clips_per_segment: int
) -> list[ChanceLevel]:
    """The chance level of both heads on segments that training keeps."""
    actions = Counter(row.label for row in rows if row.label is not None)
    regions = Counter(row.region for row in rows)
    levels = []
    for head, counts, n_classes in (
        ("action", actions, len(labels) if labels else len(actions)),
        ("region", regions, len(REGION_CLASSES)),
    ):
        total = sum(counts.values())
        if total:
            most = max(counts.values()) / total
            levels.append(ChanceLevel(head, total * clips_per_segment, most, 1.0 / n_classes))
    return levels


def _finding(
    kind: str, severity: Severity, subset: str, what: str, examples: Sequence[str]
) -> Iterator[Finding]:
    if examples:
        distinct = tuple(dict.fromkeys(examples))[:5]
        message = what.format(n=len(examples))
        yield Finding(kind, severity, subset, message, len(examples), distinct)


def _name(row: GroundTruthRow) -> str:
    what = row.label or REGION_CLASSES[1]
    return f"{row.filename} {row.start_s:.2f}-{row.end_s:.2f} s ({what})"


def lies_outside(row: GroundTruthRow) -> bool:
    """Whether a segment lies completely outside its video, so that training drops it."""
    return row.start_s >= row.duration_s or row.end_s <= 0


def reaches_beyond(row: GroundTruthRow) -> bool:
    """Whether a part of a segment is outside its video, which training cuts off."""
    too_far = row.end_s > row.duration_s + OUTSIDE_TOLERANCE_S or row.start_s < 0
    return too_far and not lies_outside(row)


def _check_rows(
    subset: str, rows: Sequence[GroundTruthRow], min_segment_s: float
) -> Iterator[Finding]:
    def examples(condition: Sequence[bool]) -> list[str]:
        return [_name(row) for row, bad in zip(rows, condition, strict=True) if bad]

    reversed_ = [row.end_s < row.start_s for row in rows]
    outside = [lies_outside(row) for row in rows]
    beyond = [reaches_beyond(row) for row in rows]
    short = [
        not out and not wrong and usable_length_s(row) < min_segment_s
        for row, out, wrong in zip(rows, outside, reversed_, strict=True)
    ]
    yield from _finding(
        "reversed",
        "error",
        subset,
        "Segments that end before they start: {n}.",
        examples(reversed_),
    )
    yield from _finding(
        "outside-video",
        "warning",
        subset,
        "Segments completely outside their video, which will be dropped: {n}.",
        examples(outside),
    )
    yield from _finding(
        "beyond-video",
        "warning",
        subset,
        f"Segments more than {OUTSIDE_TOLERANCE_S:g} s beyond their video, which will be clamped: "
        "{n}. Are these other versions of the videos?",
        examples(beyond),
    )
    durations: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        durations[row.filename].add(row.duration_s)
    yield from _finding(
        "duration-varies",
        "error",
        subset,
        "Videos for which the table gives several durations: {n}.",
        [f"{name}: {sorted(d)}" for name, d in durations.items() if len(d) > 1],
    )
    yield from _finding(
        "short-segments",
        "note",
        subset,
        f"Segments shorter than one clip ({min_segment_s:.4g} s) inside their video, which will be "
        f"dropped: {{n}} of {len(rows)}.",
        examples(short),
    )
    yield from _check_durations(subset, rows)
    yield from _check_overlaps(subset, rows)


def _check_durations(subset: str, rows: Sequence[GroundTruthRow]) -> Iterator[Finding]:
    """Find durations that are segments' lengths, as in tables made from trimmed clips."""
    same = [
        row
        for row in rows
        if row.label is not None
        and row.start_s > 0.1
        and abs((row.end_s - row.start_s) - row.duration_s) < 0.01
    ]
    yield from _finding(
        "duration-is-segment",
        "error",
        subset,
        "Rows that give the segment's length as the video's duration: {n}.",
        [_name(row) for row in same],
    )
    by_video: dict[str, list[GroundTruthRow]] = defaultdict(list)
    for row in rows:
        by_video[row.filename].append(row)
    full = [
        name
        for name, own in by_video.items()
        if len(own) == 1
        and own[0].label is not None
        and own[0].start_s <= 0.01
        and own[0].end_s >= own[0].duration_s - 0.01
    ]
    most = len(full) > 0.5 * len(by_video)
    yield from _finding(
        "action-fills-video",
        "warning" if most else "note",
        subset,
        "Videos that are one action from end to end: {n}."
        + (" Are these trimmed clips rather than untrimmed videos?" if most else ""),
        full,
    )


def _check_overlaps(subset: str, rows: Sequence[GroundTruthRow]) -> Iterator[Finding]:
    by_video: dict[str, list[GroundTruthRow]] = defaultdict(list)
    for row in rows:
        by_video[row.filename].append(row)
    duplicates, covered = [], []
    for own in by_video.values():
        own.sort(key=lambda row: (row.start_s, row.end_s))
        for i, first in enumerate(own):
            for second in own[i + 1 :]:
                if second.start_s >= first.end_s:
                    break
                overlap_s = min(first.end_s, second.end_s) - second.start_s
                union_s = max(first.end_s, second.end_s) - first.start_s
                if first.region != second.region:
                    if overlap_s > 0.01:
                        covered.append(f"{_name(first)} and {_name(second)}")
                elif first.label == second.label and overlap_s > DUPLICATE_TIOU * union_s:
                    duplicates.append(f"{_name(first)} and {_name(second)}")
    yield from _finding(
        "duplicates",
        "warning",
        subset,
        "Pairs of segments of one class that nearly coincide, whose clips count twice: {n}.",
        duplicates,
    )
    yield from _finding(
        "background-in-action",
        "warning",
        subset,
        "Background rows over an action, where the region head learns both answers: {n}.",
        covered,
    )


def _trainable_classes(rows: Sequence[GroundTruthRow], min_segment_s: float) -> set[str]:
    """Classes with a segment that is long enough for training."""
    return {
        row.label for row in rows if row.label is not None and usable_length_s(row) >= min_segment_s
    }


def _check_labels(
    subset: str,
    rows: Sequence[GroundTruthRow],
    labels: Sequence[str] | None,
    min_segment_s: float,
) -> Iterator[Finding]:
    used = {row.label for row in rows if row.label is not None}
    if labels is not None:
        yield from _finding(
            "unknown-class",
            "error",
            subset,
            "Classes that the label mapping lacks: {n}.",
            sorted(used - set(labels)),
        )
        yield from _finding(
            "empty-class",
            "warning",
            subset,
            "Classes of the label mapping without a sample: {n}.",
            [name for name in labels if name not in used],
        )
    yield from _finding(
        "short-class",
        "warning",
        subset,
        f"Classes without a segment as long as a clip ({min_segment_s:.4g} s): {{n}}.",
        sorted(used - _trainable_classes(rows, min_segment_s)),
    )
    regions = {row.region for row in rows}
    yield from _finding(
        "missing-region",
        "warning",
        subset,
        "Region classes without a sample, so that the region head learns nothing: {n}.",
        [region for region in REGION_CLASSES if region not in regions],
    )


def _check_files(
    subset: str,
    rows: Sequence[GroundTruthRow],
    files: Mapping[str, float | None],
    in_any_table: set[str],
) -> Iterator[Finding]:
    named = {row.filename: row.duration_s for row in rows}
    yield from _finding(
        "missing-video",
        "error",
        subset,
        "Videos of the table that are not in the folder: {n}.",
        sorted(set(named) - set(files)),
    )
    yield from _finding(
        "extra-video",
        "note",
        subset,
        "Videos of the folder that are in no table: {n}.",
        sorted(set(files) - in_any_table),
    )
    yield from _finding(
        "unreadable-video",
        "error",
        subset,
        "Videos that cannot be read: {n}.",
        sorted(name for name in named if name in files and files[name] is None),
    )
    differs = []
    for name, table_s in named.items():
        file_s = files.get(name)
        if file_s is not None and abs(file_s - table_s) > DURATION_TOLERANCE_S:
            differs.append(f"{name}: {table_s:.2f} s in the table, {file_s:.2f} s in the file")
    yield from _finding(
        "duration-differs",
        "warning",
        subset,
        f"Videos more than {DURATION_TOLERANCE_S:g} s longer or shorter than in the table: {{n}}.",
        differs,
    )


def _check_split(
    train: Sequence[GroundTruthRow], valid: Sequence[GroundTruthRow], min_segment_s: float
) -> Iterator[Finding]:
    yield from _finding(
        "class-in-validation-alone",
        "error",
        "valid",
        "Classes of validation without a segment in training that is long enough: {n}.",
        sorted(_trainable_classes(valid, min_segment_s) - _trainable_classes(train, min_segment_s)),
    )
    yield from _finding(
        "video-in-both",
        "error",
        "valid",
        "Videos in training and in validation: {n}.",
        sorted({row.filename for row in train} & {row.filename for row in valid}),
    )
