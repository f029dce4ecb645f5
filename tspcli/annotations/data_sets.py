"""Data sets with conventions of their own: evaluation protocol, names of videos, form of features.

Annotations of most of them come in ActivityNet's JSON, so a data set is more than a dialect. What a
reader's configuration says of a data set stands with that reader's target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["training", "validation", "testing"]
"""The part that a video plays, in ActivityNet's words."""

_LEAST_SHARE = 0.9


@dataclass(frozen=True)
class DataSet:
    """The conventions of a data set.

    Attributes:
        name: What users and reports call it.
        title: Its name in prose.
        tious: The thresholds of its evaluation protocol. Empty for what is no data set of its own;
            what follows matters for data sets alone.
        video_names: A regular expression for the whole name of a video, if names give it away. A
            tenth of them may be others.
        roles_by_prefix: How the names of its videos begin, with the part that such a video plays,
            whatever word its files use.
        id_prefix: What readers of features put before the IDs of its videos.
    """

    name: str
    title: str = field(default="", kw_only=True)
    tious: tuple[float, ...] = field(default=(), kw_only=True)
    video_names: str = field(default="", kw_only=True)
    roles_by_prefix: Mapping[str, Role] = field(default_factory=dict, kw_only=True)
    id_prefix: str = field(default="", kw_only=True)

    def role(self, video: str) -> Role | None:
        """The part that a video plays by its name alone, or None."""
        return next((r for p, r in self.roles_by_prefix.items() if video.startswith(p)), None)

    def owns(self, videos: Iterable[str]) -> bool:
        """Whether their names give these videos away as this data set's."""
        videos = list(videos)
        if self.video_names:
            fitting = sum(bool(re.fullmatch(self.video_names, name)) for name in videos)
            return bool(videos) and fitting >= _LEAST_SHARE * len(videos)
        return bool(videos) and all(self.role(name) is not None for name in videos)


def spaced(first: float, last: float, number: int) -> tuple[float, ...]:
    """The floats of ``numpy.linspace``, which the official evaluation code compares with."""
    step = (last - first) / (number - 1)
    return (*(first + i * step for i in range(number - 1)), last)


_STRICT, _LOOSE, _EGOCENTRIC = spaced(0.5, 0.95, 10), spaced(0.1, 0.9, 9), spaced(0.1, 0.5, 5)
THUMOS14_ROLES: Mapping[str, Role] = {
    "video_validation_": "training",
    "video_test_": "validation",
}

OWN = DataSet("own", title="data of your own", tious=_STRICT)
"""What names no data set's videos are."""

WITHOUT_DIALECT = (
    DataSet("hacs", title="HACS", tious=_STRICT),
    DataSet("fineaction", title="FineAction", tious=_STRICT),
    DataSet("charades", title="Charades", tious=_LOOSE),
    DataSet("multithumos", title="MultiTHUMOS", tious=_LOOSE, roles_by_prefix=THUMOS14_ROLES),
    DataSet("epic-kitchens", title="EPIC-Kitchens-100", tious=_EGOCENTRIC),
    DataSet("ego4d", title="Ego4D moment queries", tious=_EGOCENTRIC),
    OWN,
)
"""Data sets without a dialect of annotations of their own.

None is recognised by its names: HACS's are YouTube IDs as ActivityNet's, and ``P01_01`` or five
characters may be anybody's.
"""
