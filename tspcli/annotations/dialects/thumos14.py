"""THUMOS14's per-class text files, and the tables made from them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tspcli.annotations.dialects.tables import read_table
from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment, role_by_name
from tspcli.annotations.text_files import parse_time, read_text
from tspcli.core.text import refuses_damage
from tspcli.errors import AnnotationError

_SUBSETS = {"training": "valid", "validation": "test"}
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
    return with_subsets(read_table(path) if is_table else read_class_files(path)).classed()


def is_class_file(path: Path) -> bool:
    """Whether a file is called as THUMOS14's per-class files are."""
    return _CLASS_FILE.fullmatch(path.name) is not None


def with_subsets(found: Annotations) -> Annotations:
    """The videos with the subsets ``valid`` and ``test`` that their names tell, if they do."""
    for name, video in found.items():
        role = role_by_name(name)
        found[name] = video if role is None else replace(video, subset=_SUBSETS[role])
    return found


def read_class_files(path: Path) -> Annotations:
    """Read a folder of per-class files, or one of them, ambiguous stretches and all.

    Raises:
        AnnotationError: If there is none, or a line does not fit.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    by_class = [(file, match) for file in files if (match := _CLASS_FILE.fullmatch(file.name))]
    if not by_class or not path.exists():
        raise AnnotationError(
            f"{path} holds no per-class file such as BaseballPitch_val.txt.",
            remedy="Give the folder of THUMOS14's temporal annotations, or a CSV file.",
        )
    segments: dict[str, list[Segment]] = {}
    for file, match in by_class:
        for line_number, line in enumerate(read_text(file, "class file").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            where = f"{file}, line {line_number}"
            if len(words) != 3:
                raise AnnotationError(
                    f"{where}: {line.strip()!r} is not 'video start end'.",
                    remedy="Give the files as released.",
                )
            start_s, end_s = (parse_time(word, where) for word in words[1:])
            segments.setdefault(words[0], []).append(Segment(start_s, end_s, match["label"]))
    return Annotations(
        {name: AnnotatedVideo(tuple(own)) for name, own in segments.items()},
        path=path,
        dialect="thumos14",
    )
