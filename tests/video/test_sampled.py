"""Frames decoded and frames shown: what the times do not explain is reported with its figures."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest

from tspcli.sampling import Sampling
from tspcli.video import sampled_frames
from tspcli.video.source import Frame, VideoInfo, VideoSource, Wanted


class Picture(Frame):
    """A frame whose picture nobody looks at."""

    @property
    def has_picture(self) -> bool:
        return True


class Listed(VideoSource):
    """A source whose frames have the given times, in units of 1/600 s."""

    decoder = "listed"

    def __init__(self, times: list[int], fps: int | None) -> None:
        rate = None if fps is None else Fraction(fps)
        zero, base = Fraction(0), Fraction(1, 600)
        self.info = VideoInfo(
            "listed", 4, 4, 0, rate, None, None, None, zero, base, 0, "raw", None, "none"
        )
        self.warnings = []
        self.n_decoded = len(times)
        self._times = times

    def frames(
        self, start_s: Fraction | None = None, *, wanted: Wanted | None = None
    ) -> Iterator[Frame]:
        return (Picture(Fraction(time, 600), Fraction(1, 30)) for time in self._times)

    def close(self) -> None:
        pass


def figures(times: list[int], fps: int | None) -> list[tuple[int, int]]:
    """What is reported: so many frames of so many."""
    source = Listed(times, fps)
    list(sampled_frames(source, Sampling()))
    found = []
    for warning in source.warnings:
        kind, n_lost, _, n_frames, *_ = warning.split()
        assert kind == "clock:"
        found.append((int(n_lost), int(n_frames)))
    return found


STEADY = list(range(0, 6000, 20))


@pytest.mark.parametrize(
    ("times", "fps"),
    [
        (STEADY, 30),
        (list(range(0, 6000, 25)), 24),
        (list(range(0, 6000, 5)), 120),
        (list(range(0, 6000, 12)), 50),
        ([time + 9 * (time % 7 == 0) for time in STEADY], 30),
        ([0], None),
    ],
    ids=["30", "24", "120", "50", "jitter", "one frame"],
)
def test_times_that_explain_themselves(times: list[int], fps: int | None) -> None:
    assert figures(times, fps) == []


@pytest.mark.parametrize(
    ("times", "fps", "reported"),
    [
        (STEADY + STEADY, 30, (300, 600)),
        ([*STEADY[:200], *STEADY[100:]], 30, (100, 400)),
        ([time for time in STEADY for _ in range(2)], 60, (300, 600)),
        ([*STEADY[:10], STEADY[9], *STEADY[10:]], 30, (1, 301)),
        (list(range(600)), 25, (569, 600)),
    ],
    ids=["restarted", "back", "each twice", "one twice", "too fast"],
)
def test_frames_that_are_in_no_row(
    times: list[int], fps: int | None, reported: tuple[int, int]
) -> None:
    assert figures(times, fps) == [reported]
