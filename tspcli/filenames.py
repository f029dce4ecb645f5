"""How files of videos are called."""

from __future__ import annotations

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "m1v", "m2ts", "m2v", "m4v"),
        *("mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "ogm", "ogv"),
        *("qt", "rm", "rmvb", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
"""What counts as a video inside a folder, and what names of videos may or may not carry elsewhere.

A file that is named itself may have any suffix.
"""
