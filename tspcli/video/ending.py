"""Whether a file ends where it says that it does: a download that broke off decodes without error.

Some containers announce a duration for each stream, which settles it. Matroska, WebM, FLV and ASF
announce one for all streams together, and sound may well be longer than the picture; there a file
counts as cut off only if none of its streams comes near that end. AVI keeps the number of frames
in its header. MPEG's streams, Ogg and raw video announce nothing.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import av.error

from tspcli.video.base import VideoInfo

_SHARED = {"matroska", "webm", "flv", "asf"}
"""Where FFmpeg tells the duration of the whole file, for its streams too (ASF)."""
_TOLERANCE_S = Fraction(1)
_TOLERANCE = Fraction(1, 50)


def missing_end(
    name: str, container: Any, stream: Any, info: VideoInfo, end_s: Fraction
) -> str | None:
    """What to say of a file that holds less than it announces, None if it holds all.

    Reads what is left of the other streams if that has to decide.

    Args:
        name: The file, as FFmpeg is to be told it.
        container: The same, open.
        stream: Its video stream.
        info: What it says of itself.
        end_s: When the display of its last frame ends, seconds on the file's clock.
    """
    names = set(info.container.split(","))
    if names & _SHARED:
        announced_s = Fraction(container.duration or 0, av.time_base)
        # Matroska counts its duration from zero, wherever the first frame is.
        origin_s = min(info.origin_s, Fraction(0)) if "matroska" in names else info.origin_s
        lasted_s = end_s - origin_s
        short = _is_short(lasted_s, announced_s)
        if short and _others_reach_the_end(name, stream, lasted_s, announced_s, origin_s):
            return None
    else:
        announced_s = _own_duration_s(stream, info)
        lasted_s = end_s - (info.start_s or Fraction(0))
        short = _is_short(lasted_s, announced_s)
    if not short:
        return None
    return (
        f"truncated: container announces {float(announced_s):.1f} s, "
        f"frames end at {float(lasted_s):.1f} s"
    )


def _is_short(lasted_s: Fraction, announced_s: Fraction) -> bool:
    return announced_s - lasted_s > max(_TOLERANCE_S, announced_s * _TOLERANCE)


def _own_duration_s(stream: Any, info: VideoInfo) -> Fraction:
    """The duration that is announced for this stream alone, 0 if none is."""
    own_s = Fraction(0)
    if stream.duration:
        own_s = stream.duration * info.time_base
    elif info.duration_s is not None and len(stream.container.streams) == 1:
        own_s = info.duration_s
    if info.container == "avi" and info.n_frames and info.fps:
        # FFmpeg makes the duration of an AVI file whose index is gone out of what is there.
        own_s = max(own_s, info.n_frames / info.fps)
    return own_s


def _others_reach_the_end(
    name: str, stream: Any, lasted_s: Fraction, announced_s: Fraction, origin_s: Fraction
) -> bool:
    for from_s in (lasted_s + origin_s, None):
        with (
            suppress(av.error.FFmpegError, OSError, IndexError),
            av.open(name, metadata_errors="replace") as container,
        ):
            others = [
                other
                for other in container.streams
                if other.index != stream.index and other.type in ("audio", "subtitle", "video")
            ]
            if not others:
                return False
            if from_s is not None:
                container.seek(int(from_s * av.time_base))
            seen = False
            for packet in container.demux(others):
                if packet.pts is None or packet.time_base is None:
                    continue
                seen = True
                if not _is_short(packet.pts * packet.time_base - origin_s, announced_s):
                    return True
            if seen:
                return False
        # Where seeking fails, or leads past the end, the file is read from its beginning.
    return False
