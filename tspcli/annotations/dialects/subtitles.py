"""What SubRip and WebVTT have in common: cues, each with its times and its text.

A cue is a segment whose label is its text on one line. The video is called as its file is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.text_files import Place, Source, parse_time, read_text
from tspcli.core.video_names import Spellings

TIMES = re.compile(r"\s*([\d:.,]+)\s+-->\s+([\d:.,]+)(\s.*)?")
"""The line of a cue that holds its times, and in WebVTT where it is shown."""


def read_cues(
    source: Source,
    suffix: str,
    *,
    text_of: Callable[[str], str] = str,
) -> Annotations:
    """Read a file of subtitles, or a folder with one per video.

    Args:
        source: The file or folder.
        suffix: Of the files in a folder.
        text_of: What the text of a cue says to a reader.

    Raises:
        AnnotationError: If a line of times is none, a cue has no text, or two files are of one
            video.
    """
    found = Annotations(path=source.path)
    spellings = Spellings()
    for path in source.files(suffix):
        if spellings.first(path.stem) in found:
            raise Place(path, video=path.stem).error("another file is of the same video.")
        lines = read_text(path, "subtitle file").splitlines()
        found[path.stem] = AnnotatedVideo(tuple(_cues(path, lines, text_of)))
    return found


def _cues(path: Path, lines: list[str], text_of: Callable[[str], str]) -> list[Segment]:
    cues = []
    for first, block in _blocks(lines):
        at = next((n for n, line in enumerate(block) if "-->" in line), None)
        if at is None:  # in WebVTT: the header, a note, a style; none may hold an arrow
            continue
        place = Place(path, line=first + at)
        match = TIMES.fullmatch(block[at])
        if match is None:
            raise place.error(f"{block[at]!r} is not START --> END.", value=block[at])
        start_s, end_s = (parse_time(time.replace(",", "."), place) for time in match.group(1, 2))
        label = " ".join(text_of(" ".join(block[at + 1 :])).split())
        if not label:
            raise place.error("the cue has no text.")
        cues.append(Segment(start_s, end_s, label))
    return cues


def _blocks(lines: list[str]) -> list[tuple[int, list[str]]]:
    """The lines between empty ones, with the number of the first, from 1."""
    blocks: list[tuple[int, list[str]]] = []
    is_open = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            is_open = False
        elif is_open:
            blocks[-1][1].append(line)
        else:
            blocks.append((number, [line]))
            is_open = True
    return blocks


def cue_times(segment: Segment, point: str) -> str:
    """``00:00:01.500 --> 00:00:02.250``, with a point or a comma before the milliseconds."""
    return " --> ".join(_clock(round(time * 1000), point) for time in segment[:2])


def _clock(ms: int, point: str) -> str:
    return (
        f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
    )
