"""THUMOS14's per-class text files, and the tables made from them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tspcli.errors import AnnotationError
from tspcli.parsing import refuses_damage
from tspcli.pretraining.annotations.model import ActionSegment, Annotations
from tspcli.pretraining.annotations.table import parse_time, read_table

AMBIGUOUS = "Ambiguous"
"""Stretches that the annotators could not decide on; the official tables leave them out."""

_CLASS_FILE = re.compile(r"(?P<label>.+)_(?:val|test)\.txt")


@refuses_damage(AnnotationError, "Give THUMOS14's temporal annotations as released.")
def read_thumos14(path: str | Path) -> Annotations:
    """Read THUMOS14 annotations.

    Args:
        path: The folder of the release's per-class files (``BaseballPitch_val.txt`` and so on, one
            ``video start end`` a line; validation and test may lie together), one such file, or a
            CSV with video, type, start and end.

    Returns:
        Annotations without the ambiguous stretches, which are counted in ``skipped``. Subsets are
        ``valid`` and ``test``, read off the videos' names.

    Raises:
        AnnotationError: If there is nothing of that kind, or a line does not fit.
    """
    path = Path(path)
    is_table = path.suffix.lower() in (".csv", ".tsv")
    found = read_table(path) if is_table else _read_class_files(path)
    kept = {
        video: [s for s in segments if s.label != AMBIGUOUS]
        for video, segments in found.segments.items()
    }
    skipped = Counter(found.skipped)
    ambiguous = sum(map(len, found.segments.values())) - sum(map(len, kept.values()))
    if ambiguous:
        skipped[AMBIGUOUS] += ambiguous
    subsets = {video: subset for video in kept if (subset := _subset(video)) is not None}
    return Annotations(segments=kept, subsets=subsets, skipped=dict(skipped))


def _subset(video: str) -> str | None:
    for word, subset in (("validation", "valid"), ("test", "test")):
        if word in video:
            return subset
    return None


def _read_class_files(path: Path) -> Annotations:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    by_class = [(file, match) for file in files if (match := _CLASS_FILE.fullmatch(file.name))]
    if not by_class or not path.exists():
        raise AnnotationError(
            f"{path} holds no per-class file such as BaseballPitch_val.txt.",
            remedy="Give the folder of THUMOS14's temporal annotations, or a CSV file.",
        )
    annotations = Annotations(segments={})
    for file, match in by_class:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 3:
                raise AnnotationError(
                    f"{file}, line {number}: {line.strip()!r} is not 'video start end'.",
                    remedy="Give the files as released.",
                )
            where = f"{file}, line {number}"
            segment = ActionSegment(
                parse_time(words[1], where), parse_time(words[2], where), match["label"]
            )
            annotations.segments.setdefault(words[0], []).append(segment)
    return annotations
