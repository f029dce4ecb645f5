"""A video file as PyAV opens it: which of its streams is the video, and what it says of itself."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.error

from tspcli.errors import VideoError
from tspcli.timeline import round_half_away
from tspcli.video.base import VideoInfo, looks_like_mp4


def open_container(name: str, path: str) -> Any:
    """Open a file.

    Args:
        name: As FFmpeg is to be told it.
        path: As errors are to tell it.

    Raises:
        VideoError: With its reason, if it cannot be opened.
    """
    try:
        return av.open(name, metadata_errors="replace")
    except MemoryError as error:
        raise VideoError("out-of-memory", str(error), path=path) from error
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise VideoError("unsupported", str(error), path=path) from error
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
        if looks_like_mp4(name):
            raise VideoError(
                "damaged",
                "an MP4 file whose index (the moov box) is missing or broken, as when a "
                "download was cut off",
                path=path,
            ) from error
        raise VideoError("not-a-video", path=path) from error


def pick_stream(container: Any, path: str) -> Any:
    """The stream with the most pixels, as ffmpeg picks; cover art is none.

    Raises:
        VideoError: ``no-video-stream`` or ``not-a-video``, if there is none.
    """
    best, best_pixels = None, -1
    for stream in container.streams.video:
        context = stream.codec_context
        if _is_cover_art(stream) or context is None:
            continue
        pixels = context.width * context.height
        if pixels > best_pixels:
            best, best_pixels = stream, pixels
    if best is not None:
        return best
    if len(container.streams) and not container.streams.video:
        raise VideoError("no-video-stream", path=path)
    if container.streams.video:
        raise VideoError("no-video-stream", "its only pictures are cover art", path=path)
    raise VideoError("not-a-video", "the file holds no stream", path=path)


def describe(container: Any, stream: Any, path: str, rotation_deg: int) -> VideoInfo:
    """What the file says of its video stream.

    Args:
        container: The open file.
        stream: One of its video streams.
        path: As errors are to tell it.
        rotation_deg: Clockwise, a multiple of 90; width and height are those of the upright
            picture.
    """
    context, base = stream.codec_context, Fraction(stream.time_base)
    duration_s = None
    if stream.duration:
        duration_s = stream.duration * base
    elif container.duration:
        duration_s = Fraction(container.duration, av.time_base)
    origin_s = Fraction(0)
    if container.start_time is not None:
        # ffmpeg moves timestamps by the container's start in units of the stream.
        start = Fraction(container.start_time, av.time_base)
        origin_s = round_half_away(start / base) * base
    width, height = context.width, context.height
    if rotation_deg % 180:
        width, height = height, width
    rate = stream.average_rate or stream.guessed_rate
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rotation_deg=rotation_deg,
        fps=Fraction(rate) if rate else None,
        duration_s=duration_s,
        n_frames=stream.frames or None,
        start_s=None if stream.start_time is None else stream.start_time * base,
        origin_s=origin_s,
        time_base=base,
        stream_index=stream.index,
        codec=context.name,
        pixel_format=context.pix_fmt,
        container=container.format.name,
        # FFmpeg's AV_FIELD_UNKNOWN is 0, AV_FIELD_PROGRESSIVE 1.
        interlaced=int(getattr(context, "field_order", 0)) > 1,
    )


def _is_cover_art(stream: Any) -> bool:
    disposition = getattr(stream, "disposition", None)
    flag = getattr(type(disposition), "attached_pic", None)
    return disposition is not None and flag is not None and bool(disposition & flag)
