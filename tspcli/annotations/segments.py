"""What annotations say, whatever dialect they came in: segments, subsets and class names.

ActivityNet trains on ``training`` and evaluates on ``validation``. THUMOS14 trains on its
validation videos and evaluates on its test videos, so the same word means two things. Therefore
:meth:`Annotations.subset` takes the source's own word, and :meth:`Annotations.role` the part that a
video plays, which THUMOS14's video names give.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from tspcli.annotations.dialects import Role, role_by_name
from tspcli.annotations.text_files import load_json
from tspcli.core.text import refuses_damage
from tspcli.core.video_names import find_name, pair_names
from tspcli.errors import AnnotationError

Kind = Literal["actions", "captions", "metadata"]

AMBIGUOUS = "Ambiguous"
"""THUMOS14's label of stretches that its annotators could not decide on; not a class."""

_ROLES: dict[str, Role] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}


class Segment(NamedTuple):
    """A stretch of a video with a label: an action or a caption.

    Attributes:
        start_s: Start in seconds after the video's first frame.
        end_s: End in seconds after the video's first frame.
        label: The action's name, or the caption.
        frames: Start and end in frames of the original video, if annotated.
    """

    start_s: float
    end_s: float
    label: str
    frames: tuple[int, int] | None = None


@dataclass(frozen=True)
class AnnotatedVideo:
    """One video of an annotation file.

    Attributes:
        segments: Its segments in the file's order; may be empty.
        duration_s: Annotated duration in seconds, or None.
        subset: The file's own word for the subset that it belongs to, or None.
        n_frames: Annotated number of frames, or None.
        fps: Annotated frame rate of the original video, or None.
        feature_frame: The number of frames that features cover, in BSN's dialect, or None.
    """

    segments: tuple[Segment, ...] = ()
    duration_s: float | None = None
    subset: str | None = None
    n_frames: int | None = None
    fps: float | None = None
    feature_frame: float | None = None


class Annotations(dict[str, AnnotatedVideo]):
    """The videos of one source by name, in its order.

    Attributes:
        path: The file or folder they were read from, or None.
        dialect: A name in :data:`~tspcli.annotations.dialects.DIALECTS`, or empty.
        kind: Whether segments are actions or captions; ``metadata`` has no segments.
        skipped: How many of the source's rows were left out, by reason.
        roles: The parts that its subsets play, for those whose own word means another.
    """

    def __init__(
        self,
        videos: Mapping[str, AnnotatedVideo] | Iterable[tuple[str, AnnotatedVideo]] = (),
        *,
        path: Path | None = None,
        dialect: str = "",
        kind: Kind = "actions",
        skipped: Mapping[str, int] | None = None,
        roles: Mapping[str, Role] | None = None,
    ) -> None:
        super().__init__(videos)
        self.path = path
        self.dialect = dialect
        self.kind = kind
        self.skipped = Counter(skipped or {})
        self.roles = dict(roles or {})

    @property
    def stem(self) -> str:
        """The file's name without its extension."""
        return "" if self.path is None else self.path.stem

    def labels(self) -> list[str]:
        """All class names, sorted; a class's id is its index."""
        return sorted({segment.label for video in self.values() for segment in video.segments})

    def find(self, name: str) -> str | None:
        """The name under which a video file's stem or a store's key is annotated, or None."""
        return find_name(name, self)

    def pair(self, names: Collection[str]) -> dict[str, str]:
        """The annotated name of each of ``names`` that is annotated.

        Equal names are paired before all others, which :meth:`find` cannot do.

        Raises:
            AnnotationError: If a name could mean either of two videos.
        """
        return pair_names(names, self)

    def select(self, keep: Callable[[str, AnnotatedVideo], bool]) -> Annotations:
        """The videos for which ``keep(name, video)`` holds."""
        return self._like({name: video for name, video in self.items() if keep(name, video)})

    def subset(self, word: str | None) -> Annotations:
        """The videos of one subset, by the source's own word for it; all if ``word`` is None.

        A source without subsets counts as one subset, whatever ``word`` is.

        Raises:
            AnnotationError: If no video belongs to the subset.
        """
        if word is None or not self._has_subsets:
            return self
        return self._require(
            self.select(lambda _, v: v.subset is not None and same_subset(v.subset, word)), word
        )

    def role(self, role: Role) -> Annotations:
        """The videos that play one part; all if the source has no subsets.

        Raises:
            AnnotationError: If no video plays it.
        """
        if not self._has_subsets:
            return self
        return self._require(self.select(lambda name, v: _plays(role, name, self.part(v))), role)

    def part(self, video: AnnotatedVideo) -> str | None:
        """The word for a video's subset that means the part which it plays, or None."""
        return self.roles.get(video.subset or "", video.subset)

    def classed(self) -> Annotations:
        """Without :data:`AMBIGUOUS` stretches, which are counted in ``skipped``."""
        return self._without(lambda segment: segment.label == AMBIGUOUS, AMBIGUOUS)

    def forward(self) -> Annotations:
        """Without segments that end before they start, which are counted in ``skipped``."""
        return self._without(lambda s: s.end_s < s.start_s, "ends before it starts")

    def _without(self, unwanted: Callable[[Segment], bool], reason: str) -> Annotations:
        kept = self._like(self)
        for name, video in self.items():
            segments = tuple(segment for segment in video.segments if not unwanted(segment))
            if len(segments) < len(video.segments):
                kept[name] = replace(video, segments=segments)
                kept.skipped[reason] += len(video.segments) - len(segments)
        return kept

    @property
    def _has_subsets(self) -> bool:
        return any(video.subset is not None for video in self.values())

    def _require(self, selected: Annotations, word: str) -> Annotations:
        if not selected:
            known = sorted({str(video.subset) for video in self.values()})
            raise AnnotationError(
                f"No annotated video belongs to the subset {word!r}; the subsets are: "
                f"{', '.join(known)}.",
                path=self.path,
                value=word,
                known=known,
            )
        return selected

    def _like(self, videos: Mapping[str, AnnotatedVideo]) -> Annotations:
        return Annotations(
            videos,
            path=self.path,
            dialect=self.dialect,
            kind=self.kind,
            skipped=self.skipped,
            roles=self.roles,
        )


def role_of(name: str, subset: str | None, default: Role | None = None) -> Role | None:
    """The part that a video plays.

    Args:
        name: Its name.
        subset: What its file calls its subset, or None.
        default: The part of a video for which neither gives it.

    Raises:
        AnnotationError: If ``subset`` is not a known word.
    """
    by_name = role_by_name(name)
    if by_name is not None or subset is None:
        return by_name or default
    return parse_role(subset, name)


def parse_role(word: str, where: str) -> Role:
    """The role that a word such as ``val`` names.

    Args:
        word: The word.
        where: Who uses it, for the message.

    Raises:
        AnnotationError: If the word is not known.
    """
    known = _known_role(word)
    if known is None:
        raise AnnotationError(
            f"{where}: the subset {word!r} is unknown; use training, validation or testing.",
            value=word,
        )
    return known


def same_subset(one: str, other: str) -> bool:
    """Whether two words name one subset, as ``valid`` and ``Validation`` do."""
    return (_known_role(one) or one.strip().lower()) == (
        _known_role(other) or other.strip().lower()
    )


def role_of_file(path: Path) -> Role | None:
    """The role that a file's name gives, as in ``activitynet_v1-3_train_metadata.csv``."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    found = {_ROLES[word] for word in words if word in _ROLES}
    return found.pop() if len(found) == 1 else None


def _plays(role: Role, name: str, subset: str | None) -> bool:
    """Whether a video plays a part; it does not if its subset is an unknown word."""
    return role == (role_by_name(name) or (None if subset is None else _known_role(subset)))


def _known_role(word: str) -> Role | None:
    return _ROLES.get(word.strip().lower())


@refuses_damage(AnnotationError, "Give a JSON list of names.")
def read_label_mapping(path: str | Path) -> list[str]:
    """Read class names, index = class id: a JSON list, or an object whose ``class`` is that list.

    Score files of video-level classifiers for ActivityNet state the order of their scores in the
    second form.

    Raises:
        AnnotationError: If the file is not a list of distinct names.
    """
    data = load_json(path, "label mapping")
    names = data.get("class") if isinstance(data, dict) else data
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not names:
        raise AnnotationError(
            f'The label mapping {path} is not a list of class names: ["name", ...].', path=path
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(
            f"The label mapping {path} names {twice[0]!r} twice.", path=path, value=twice[0]
        )
    return names


def write_label_mapping(path: Path, names: list[str]) -> None:
    """Write class names as a JSON list, one per line."""
    path.write_text(
        json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
    )
