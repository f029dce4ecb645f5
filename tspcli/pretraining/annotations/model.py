"""What every annotation reader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class ActionSegment(NamedTuple):
    """One action in one video; times in seconds from the video's start."""

    start_s: float
    end_s: float
    label: str


@dataclass
class Annotations:
    """The actions of a data set.

    Attributes:
        segments: Per video, in the order of the source. A video whose annotations are withheld or
            that has none may be there with an empty list.
        subsets: Which split each video belongs to, for sources that tell it.
        skipped: How many source rows were left out, by reason, such as ``Ambiguous``.
    """

    segments: dict[str, list[ActionSegment]]
    subsets: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def labels(self) -> list[str]:
        """All class names, sorted; a class's id is its index."""
        return sorted({s.label for segments in self.segments.values() for s in segments})

    def find(self, stem: str) -> str | None:
        """The name under which the annotations know the video file ``stem``.

        ActivityNet's files are called ``v_ID`` and some of its annotation files say ``ID``.
        """
        for name in (stem, stem.removeprefix("v_"), f"v_{stem}"):
            if name in self.segments:
                return name
        return None
