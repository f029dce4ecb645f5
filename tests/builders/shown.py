"""The frames that a whole timeline shows, as one list."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from tspcli.sampling.clock import TickTrack


def shown_frames(times_s: Iterable[Fraction], end_s: Fraction, grid_rate: Fraction) -> list[int]:
    """The index of the frame that each tick shows.

    Args:
        times_s: Presentation times of all frames in seconds, in presentation order.
        end_s: When the last frame's display time ends.
        grid_rate: Ticks per second.

    Returns:
        One frame index per tick; its length is the frame count of the standardised video.
    """
    track = TickTrack(grid_rate)
    shown: list[int] = []
    index = -1
    for index, time_s in enumerate(times_s):
        shown.extend([index - 1] * len(track.push(time_s)))
    if index >= 0:
        shown.extend([index] * len(track.finish(end_s)))
    return shown
