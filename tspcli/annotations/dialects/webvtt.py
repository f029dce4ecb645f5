"""WebVTT's cues (.vtt), one file per video, or a folder of them."""

from __future__ import annotations

import html
import re
from pathlib import Path

from tspcli.annotations.dialects.subtitles import cue_times, read_cues
from tspcli.annotations.segments import Annotations, Segment
from tspcli.annotations.text_files import Source
from tspcli.annotations.write import write_each

SUFFIX = ".vtt"
_MAGIC = "WEBVTT"
_TAG = re.compile(r"<[^>\n]*>")


def detects(source: Source) -> bool:
    """Whether it is a file that begins as WebVTT does, or a folder with some."""
    if source.is_folder:
        return bool(source.files(SUFFIX))
    return source.text.startswith(_MAGIC)


def read(source: Source) -> Annotations:
    """Read it; see :func:`~tspcli.annotations.dialects.subtitles.read_cues`."""
    return read_cues(source, SUFFIX, text_of=_plain)


def write(out: Path, annotations: Annotations) -> list[Path]:
    """Write one file per video; see :func:`~tspcli.annotations.write.write_each`."""
    return write_each(out, annotations, SUFFIX, _text)


def _plain(text: str) -> str:
    return html.unescape(_TAG.sub("", text))


def _text(name: str, segments: tuple[Segment, ...]) -> str:
    cues = (f"{cue_times(s, '.')}\n{html.escape(s.label, quote=False)}\n" for s in segments)
    return f"{_MAGIC}\n\n" + "\n".join(cues)
