"""Whether a decoder that is fast but not known shows the frames that the trusted one shows."""

from __future__ import annotations

from fractions import Fraction
from typing import NoReturn

import numpy as np

from tspcli.errors import VideoError
from tspcli.video.base import VideoSource

CHECKED_S = Fraction(2)
"""How much of every video's beginning is compared."""
PICTURE_EVERY = 5
"""The times of all those frames are compared, the pictures of every so manieth."""
MEAN_BOUND, LARGEST_BOUND = 1.0, 16
"""Of 255, over a whole picture. Hardware decodes the same planes and rounds otherwise when it makes
RGB of them; another frame, another matrix or another range is far beyond this."""


def require_same_start(candidate: VideoSource, trusted: VideoSource) -> None:
    """Compare the first seconds of a video as two decoders show them.

    Raises:
        VideoError: ``unsupported``, naming the first difference.
    """
    theirs = iter(candidate.frames())
    end_s: Fraction | None = None
    for index, expected in enumerate(trusted.frames()):
        end_s = expected.pts_s + CHECKED_S if end_s is None else end_s
        if expected.pts_s >= end_s:
            return
        found = next(theirs, None)
        where = f"at {float(expected.pts_s):.3f} s"
        if found is None or found.pts_s != expected.pts_s:
            _refuse(candidate, f"{where} it has no frame" if found is None else f"no frame {where}")
        if index % PICTURE_EVERY:
            continue
        ours, other = expected.rgb(), found.rgb()
        if ours.shape != other.shape:
            _refuse(candidate, f"{where} its frame is {other.shape}, not {ours.shape}")
        apart = np.abs(ours.astype(np.int16) - other)
        if apart.mean() > MEAN_BOUND or apart.max() > LARGEST_BOUND:
            _refuse(
                candidate,
                f"{where} its frame differs by {apart.mean():.2f} of 255 in the mean, "
                f"{apart.max()} at most",
            )


def _refuse(candidate: VideoSource, why: str) -> NoReturn:
    raise VideoError(
        "unsupported", f"{candidate.decoder} is not believed: {why}", path=candidate.info.path
    )
