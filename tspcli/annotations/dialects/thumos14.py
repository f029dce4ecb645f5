"""THUMOS14's per-class text files, one ``video start end`` per line.

Validation and test files may be in one folder. The subsets ``valid`` and ``test`` are read from the
videos' names, and those of videos with other names from the files', if there are several. If these
are ``valid`` and ``test``, they play the parts of THUMOS14's: training and validation. A table is
read too if this dialect is asked for by name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tspcli.annotations.dialects import Role, role_by_name, table
from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.text_files import Place, Source, parse_time, read_text
from tspcli.core.video_names import Spellings, without_suffix

_SUBSETS = {"training": "valid", "validation": "test"}
_ROLES: dict[str, Role] = {"valid": "training", "test": "validation"}
_CLASS_FILE = re.compile(r"(?P<label>.+)_(?P<subset>train|val|test)\.txt")
_LINE = re.compile(r"\s*(?P<video>\S.*?)\s+(?P<start>\S+)\s+(?P<end>\S+)\s*")


class _ClassFile(NamedTuple):
    path: Path
    label: str
    subset: str


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


def _class_files(source: Source) -> list[_ClassFile]:
    """The class files with the classes and subsets that their names give."""
    files = sorted(source.path.glob("*.txt")) if source.is_folder else [source.path]
    matches = [(file, _CLASS_FILE.fullmatch(file.name)) for file in files]
    return [
        _ClassFile(file, match["label"], {"val": "valid"}.get(match["subset"], match["subset"]))
        for file, match in matches
        if match
    ]


def _read_class_files(source: Source, files: list[_ClassFile]) -> Annotations:
    if not files:
        raise Place(source.path).error("there is no class file such as BaseballPitch_val.txt.")
    segments: dict[str, list[Segment]] = {}
    subsets: dict[str, str] = {}
    spellings = Spellings()
    for file in files:
        text = read_text(file.path, "class file")
        for line_number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            place = Place(file.path, line=line_number)
            match = _LINE.fullmatch(line)
            if match is None:
                raise place.error(f"{line.strip()!r} is not 'video start end'.", value=line)
            name = spellings.first(without_suffix(match["video"]))
            start_s, end_s = (parse_time(match[time], place) for time in ("start", "end"))
            segments.setdefault(name, []).append(Segment(start_s, end_s, file.label))
            known = subsets.setdefault(name, file.subset)
            if known != file.subset and role_by_name(name) is None:
                raise place.error(
                    f"{name!r} is in {file.subset!r} here, but in {known!r} in another file.",
                    video=name,
                    value=file.subset,
                )
    # Files of one suffix split nothing.
    parts = {file.subset for file in files}
    given = subsets if len(parts) > 1 else {}
    return Annotations(
        {
            name: AnnotatedVideo(tuple(own), subset=given.get(name))
            for name, own in segments.items()
        },
        path=source.path,
        roles=_ROLES if parts == set(_ROLES) else None,
    )
