"""Generated videos whose frames carry their own number, readable from the pixels.

An upright picture is a grid of four by four cells. The cells of the upper three rows are the bits
of the frame's number (dark 0, light 1, the lowest bit first); a gradient moves through all of them
so that neighbouring frames differ everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.stream
import numpy as np
import numpy.typing as npt

N_BITS = 12
MATRICES: dict[tuple[int, bool], tuple[float, float, float, float]] = {
    (0, False): (1, 0, 0, 1),
    (90, False): (0, 1, -1, 0),
    (180, False): (-1, 0, 0, -1),
    (270, False): (0, -1, 1, 0),
    (0, True): (-1, 0, 0, 1),
    (90, True): (0, -1, -1, 0),
    (180, True): (1, 0, 0, -1),
    (270, True): (0, 1, 1, 0),
}
"""Display matrices (a, b, c, d) by degrees clockwise and whether the picture is mirrored first."""
FAST_X264 = {"preset": "veryfast"}


def picture(number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The upright picture of a frame, uint8, shape (height, width, 3)."""
    rows = np.minimum(np.arange(height) * 4 // height, 3)
    columns = np.minimum(np.arange(width) * 4 // width, 3)
    cell = rows[:, None] * 4 + columns[None, :]
    bit = np.where(cell < N_BITS, (number >> np.minimum(cell, N_BITS)) & 1, 0)
    wave = (np.arange(width)[None, :] + 2 * np.arange(height)[:, None] + 5 * number) % 64
    level = np.where(cell < N_BITS, 40 + 136 * bit, 100) + wave * 40 // 64
    rgb = np.stack([level, level, level], axis=2)
    # Colour stands in the lowest row alone: chroma is what pixel formats treat differently.
    rgb[:, :, 1] += np.where(cell >= N_BITS, (3 * number) % 80, 0)
    rgb[:, :, 2] -= np.where(cell >= N_BITS, wave, 0)
    return rgb.astype(np.uint8)


def read_number(rgb: npt.NDArray[np.uint8]) -> int:
    """The number of a frame out of its upright picture; any size."""
    height, width = rgb.shape[:2]
    number = 0
    for index in range(N_BITS):
        row, column = divmod(index, 4)
        y, x = (2 * row + 1) * height // 8, (2 * column + 1) * width // 8
        patch = rgb[y - height // 32 : y + height // 32 + 1, x - width // 32 : x + width // 32 + 1]
        number |= int(patch.mean() > 128) << index
    return number


def make_video(
    path: Path,
    *,
    fps: Fraction | int | float = 30,
    n_frames: int = 60,
    width: int = 64,
    height: int = 48,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    start: int = 0,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    b_frames: int = 2,
    gop: int = 12,
    rotation_deg: int = 0,
    audio: bool = False,
    audio_start_s: float = 0.0,
    audio_s: float = 2.0,
    audio_codec: str = "aac",
    second_stream: tuple[int, int] | None = None,
    default_streams: Sequence[bool] = (True, True),
    mirrored: bool = False,
    display_matrix: Sequence[float] | None = None,
    color_range: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video; frame k shows the number k.

    Args:
        path: Where; the suffix chooses the container.
        fps: Frame rate; floats are taken as the decimal number they print as.
        n_frames: Number of frames, if ``times`` does not say.
        width, height: Size of the upright picture.
        times: Presentation times in units of ``time_base``, for variable frame rate.
        time_base: Seconds a unit; one over the rate if not given.
        start: Added to all times, in units of ``time_base``.
        codec, pixel_format: Of the encoder.
        b_frames, gop: Of encoders that have them.
        rotation_deg: How far a player turns the picture clockwise.
        audio: Whether there is a sound track, the first stream of the file.
        audio_start_s: Where the sound starts.
        audio_s: How long it lasts, in steps of 64 ms.
        audio_codec: Its encoder.
        second_stream: (width, height) of another video stream, of black frames, that comes first.
        default_streams: Whether that stream, and the one of the pictures, are flagged as default.
        mirrored: Whether a player mirrors the picture left to right before it turns it.
        display_matrix: The four entries (a, b, c, d) of the display matrix that is written; None
            takes those of ``rotation_deg`` and ``mirrored``.
        color_range: 1 limited, 2 full.
        options: For the encoder.
        container_options: For the muxer.
    """
    rate = Fraction(repr(fps)) if isinstance(fps, float) else Fraction(fps)
    base = time_base or 1 / rate
    if times is None:
        times = [round(k / rate / base) for k in range(n_frames)]
    turned = rotation_deg % 180 != 0
    with av.open(str(path), "w", options=container_options or {}) as container:
        sound = container.add_stream(audio_codec, rate=16000) if audio else None
        black = container.add_stream("libx264", rate=rate) if second_stream else None
        if black is not None and second_stream is not None:
            black.width, black.height = second_stream
            black.pix_fmt = "yuv420p"
        extra = dict(FAST_X264 if codec in ("libx264", "libx265") else {})
        if codec == "libx265":
            extra["x265-params"] = f"log-level=none:bframes={b_frames}:keyint={gop}"
        stream = container.add_stream(codec, rate=rate, options={**extra, **(options or {})})
        stream.width, stream.height = (height, width) if turned else (width, height)
        stream.pix_fmt = pixel_format
        stream.time_base = base
        stream.codec_context.time_base = base
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "mpeg4", "mpeg2video"):
            stream.codec_context.max_b_frames = b_frames
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if rotation_deg or mirrored or display_matrix:
            entries = display_matrix or MATRICES[rotation_deg, mirrored]
            a, b, c, d = (round(entry * 65536) for entry in entries)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        if black is not None:
            for each, default in zip((black, stream), default_streams, strict=True):
                each.disposition = av.stream.Disposition.default if default else 0
        sounds = iter(()) if sound is None else _sound(sound, audio_start_s, audio_s)
        for number, time in enumerate(times):
            # The first two seconds of sound come before the first picture.
            for sound_s, packets in sounds:
                container.mux(packets)
                if sound_s > 2 + time * base:
                    break
            upright = picture(number, width, height)
            turned_back = np.rot90(upright, rotation_deg // 90)
            coded = np.ascontiguousarray(turned_back[:, ::-1] if mirrored else turned_back)
            frame = av.VideoFrame.from_ndarray(coded, format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_color_range=color_range)
            frame.pts, frame.time_base = time + start, base
            container.mux(stream.encode(frame))
            if black is not None and second_stream is not None:
                empty = np.zeros((second_stream[1], second_stream[0], 3), np.uint8)
                other = av.VideoFrame.from_ndarray(empty, format="rgb24")
                other.pts, other.time_base = time + start, base
                container.mux(black.encode(other))
        container.mux(stream.encode(None))
        for _, packets in sounds:
            container.mux(packets)
        if black is not None:
            container.mux(black.encode(None))
    return path


def repeat_video(source: Path, target: Path, times: int) -> Path:
    """Copy a video's packets over and over with later times; nothing is encoded again."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        time_base = stream.time_base
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size
        ]
        length = int(Fraction(len(packets), 30) / time_base)
        with av.open(str(target), "w") as output:
            copy = output.add_stream_from_template(stream)
            for turn in range(times):
                for data, pts, dts, is_keyframe in packets:
                    packet = av.Packet(data)
                    packet.pts, packet.dts = pts + turn * length, dts + turn * length
                    packet.is_keyframe = is_keyframe
                    packet.time_base = time_base
                    packet.stream = copy
                    output.mux(packet)
    return target


def make_sound(path: Path) -> Path:
    """Write a file that holds sound alone."""
    with av.open(str(path), "w") as container:
        for _, packets in _sound(container.add_stream("aac", rate=16000), 0.0, 2.0):
            container.mux(packets)
    return path


def _sound(stream: Any, start_s: float, duration_s: float) -> Iterator[tuple[float, list[Any]]]:
    """The packets of silence, 64 ms after 64 ms, each with its time in seconds."""
    samples = np.zeros((1, 1024), np.float32)
    for index in range(math.ceil(duration_s * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        frame.pts, frame.time_base = round(start_s * 16000) + index * 1024, Fraction(1, 16000)
        yield index * 0.064, stream.encode(frame)
    yield duration_s, stream.encode(None)


def make_mixed_videos(folder: Path, n_frames: Sequence[int]) -> Path:
    """``v0.mp4`` and on, as long as told, and ``broken.mp4``, which is no video."""
    for number, count in enumerate(n_frames):
        make_video(folder / f"v{number}.mp4", fps=30, n_frames=count, width=96, height=64)
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    return folder
