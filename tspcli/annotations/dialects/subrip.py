"""SubRip's subtitles (.srt), one file per video, or a folder of them."""

from __future__ import annotations

from pathlib import Path

from tspcli.annotations.dialects.subtitles import TIMES, cue_times, read_cues
from tspcli.annotations.segments import Annotations, Segment
from tspcli.annotations.text_files import Source
from tspcli.annotations.write import write_each

SUFFIX = ".srt"


def detects(source: Source) -> bool:
    """Whether it is a file that begins with a numbered cue, or a folder with some."""
    if source.is_folder:
        return bool(source.files(SUFFIX))
    lines = source.text[:1000].split("\n")
    return source.is_table and any(TIMES.fullmatch(line.rstrip()) for line in lines[:2])


def read(source: Source) -> Annotations:
    """Read it; see :func:`~tspcli.annotations.dialects.subtitles.read_cues`."""
    return read_cues(source, SUFFIX)


def write(out: Path, annotations: Annotations) -> list[Path]:
    """Write one file per video; see :func:`~tspcli.annotations.write.write_each`."""
    return write_each(out, annotations, SUFFIX, _text)


def _text(name: str, segments: tuple[Segment, ...]) -> str:
    return "\n".join(
        f"{n}\n{cue_times(s, ',')}\n{s.label}\n" for n, s in enumerate(segments, start=1)
    )
