"""THUMOS14's per-class text files, one ``video start end`` per line.

Validation and test files may be in one folder. The subsets ``valid`` and ``test`` are read from the
videos' names. A table is read too if this dialect is asked for by name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tspcli.annotations.dialects import role_by_name, table
from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.text_files import Place, Source, parse_time, read_text

_SUBSETS = {"training": "valid", "validation": "test"}
_CLASS_FILE = re.compile(r"(?P<label>.+)_(?:val|test)\.txt")


def detects(source: Source) -> bool:
    """Whether the source is a folder with class files, or one such file, by their names."""
    return bool(_class_files(source))


def read(source: Source) -> Annotations:
    """Read it, ambiguous stretches included.

    Raises:
        AnnotationError: If there is no class file, or a line does not fit.
    """
    files = _class_files(source)
    in_classes = bool(files) or source.is_folder
    found = _read_class_files(source, files) if in_classes else table.read(source)
    for name, video in found.items():
        role = role_by_name(name)
        if role in _SUBSETS:
            found[name] = replace(video, subset=_SUBSETS[role])
    return found


def _class_files(source: Source) -> list[tuple[Path, str]]:
    """The class files with the classes that their names give."""
    files = sorted(source.path.glob("*.txt")) if source.is_folder else [source.path]
    return [(f, match["label"]) for f in files if (match := _CLASS_FILE.fullmatch(f.name))]


def _read_class_files(source: Source, files: list[tuple[Path, str]]) -> Annotations:
    if not files:
        raise Place(source.path).error("there is no class file such as BaseballPitch_val.txt.")
    segments: dict[str, list[Segment]] = {}
    for file, label in files:
        for line_number, line in enumerate(read_text(file, "class file").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            place = Place(file, line=line_number)
            if len(words) != 3:
                raise place.error(f"{line.strip()!r} is not 'video start end'.", value=line)
            start_s, end_s = (parse_time(word, place) for word in words[1:])
            segments.setdefault(words[0], []).append(Segment(start_s, end_s, label))
    return Annotations(
        {name: AnnotatedVideo(tuple(own)) for name, own in segments.items()}, path=source.path
    )
