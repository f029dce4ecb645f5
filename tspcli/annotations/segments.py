"""What annotations say, whatever dialect they came in.

Label mappings: class names in the order of their ids.

Which part a video plays: the words of the files, and what they mean.

ActivityNet trains on ``training`` and evaluates on ``validation``. THUMOS14 trains on its
validation videos and evaluates on its test videos, so that one word means two things, and a
THUMOS14 video is told by its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from tspcli.annotations.text_files import load_json
from tspcli.core.text import refuses_damage
from tspcli.core.video_names import find_name, pair_names
from tspcli.errors import AnnotationError

Kind = Literal["actions", "captions", "metadata"]

AMBIGUOUS = "Ambiguous"
"""THUMOS14's label of stretches that its annotators could not decide on; no class."""


class Segment(NamedTuple):
    """A stretch of a video with a label: an action, or a caption.

    Attributes:
        start_s: Start in seconds after the video's first frame.
        end_s: End, likewise.
        label: The action's name, or the caption.
        frames: Start and end in frames of the original video, where the annotation tells them.
    """

    start_s: float
    end_s: float
    label: str
    frames: tuple[int, int] | None = None


@dataclass(frozen=True)
class AnnotatedVideo:
    """One video of an annotation file.

    Attributes:
        segments: Its segments, in the file's order; may be empty.
        duration_s: Annotated duration in seconds, or None.
        subset: The part it plays in the file's own words, or None if the file does not tell.
        n_frames: Annotated number of frames, or None.
        fps: Annotated frames a second of the original video, or None.
        feature_frame: The frames that features cover, in BSN's dialect, or None.
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
        path: Where they were read; None if they were not.
        dialect: Such as ``activitynet``.
        kind: Whether segments are actions, or captions, or there are none.
        skipped: How many of the source's rows were left out, by reason.
    """

    def __init__(
        self,
        videos: Mapping[str, AnnotatedVideo] | Iterable[tuple[str, AnnotatedVideo]] = (),
        *,
        path: Path | None = None,
        dialect: str = "",
        kind: Kind = "actions",
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(videos)
        self.path = path
        self.dialect = dialect
        self.kind = kind
        self.skipped = Counter(skipped or {})

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
        """The names under which videos are annotated, by theirs, of those that are.

        Equal names belong together before all others, which :meth:`find` cannot know.

        Raises:
            AnnotationError: If it cannot be told which of two videos is meant.
        """
        return pair_names(names, self)

    def chosen(self, keep: Callable[[str, AnnotatedVideo], bool]) -> Annotations:
        """Those videos for which ``keep(name, video)`` holds."""
        return self._like({name: video for name, video in self.items() if keep(name, video)})

    def subset(self, word: str | None) -> Annotations:
        """The videos of one subset, by the file's own word for it; all if ``word`` is None.

        A file that tells no subsets is one, whatever it is called.

        Raises:
            AnnotationError: If no video belongs to it.
        """
        if word is None or not self._tells_subsets:
            return self
        return self._some(
            self.chosen(lambda _, v: v.subset is not None and same_subset(v.subset, word)), word
        )

    def role(self, role: Role) -> Annotations:
        """The videos that play one part; all if the file tells no subsets.

        Raises:
            AnnotationError: If none does.
        """
        if not self._tells_subsets:
            return self
        return self._some(self.chosen(lambda name, v: plays(role, name, v.subset)), role)

    def classed(self) -> Annotations:
        """Without :data:`AMBIGUOUS` stretches, which are counted in ``skipped``."""
        kept = self._like(
            {
                name: replace(
                    video, segments=tuple(s for s in video.segments if s.label != AMBIGUOUS)
                )
                for name, video in self.items()
            }
        )
        n_ambiguous = sum(
            len(video.segments) - len(kept[name].segments) for name, video in self.items()
        )
        if n_ambiguous:
            kept.skipped[AMBIGUOUS] += n_ambiguous
        return kept

    @property
    def _tells_subsets(self) -> bool:
        return any(video.subset is not None for video in self.values())

    def _some(self, chosen: Annotations, word: str) -> Annotations:
        if not chosen:
            known = sorted({str(video.subset) for video in self.values()})
            raise AnnotationError(
                f"No annotated video belongs to the subset {word!r}.",
                remedy=f"The subsets here are: {', '.join(known) or 'none'}.",
            )
        return chosen

    def _like(self, videos: Mapping[str, AnnotatedVideo]) -> Annotations:
        return Annotations(
            videos, path=self.path, dialect=self.dialect, kind=self.kind, skipped=self.skipped
        )


@refuses_damage(AnnotationError, "Give a JSON list of names.")
def read_label_mapping(path: str | Path) -> list[str]:
    """Read class names, index = class id: a JSON list, or an object whose ``class`` is that list.

    The second is how the score files of video-level classifiers for ActivityNet tell the order of
    their scores.

    Raises:
        AnnotationError: If it is no list of distinct names.
    """
    data = load_json(path, "label mapping")
    names = data.get("class") if isinstance(data, dict) else data
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not names:
        raise AnnotationError(
            f"The label mapping {path} is no list of class names.",
            remedy='Expected ["name", …]; a name\'s index is its id.',
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(
            f"The label mapping {path} names {twice[0]!r} twice.", remedy="Every class stands once."
        )
    return names


def write_label_mapping(path: Path, names: list[str]) -> None:
    """Write class names as a JSON list, one a line."""
    path.write_text(
        json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
    )


Role = Literal["training", "validation", "testing"]
"""The part that a video plays, in ActivityNet's words."""

_ROLES: dict[str, Role] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}
THUMOS14_NAMES: dict[str, Role] = {
    "video_validation_": "training",
    "video_test_": "validation",
}
"""What THUMOS14's names begin with, and the part that such a video plays."""


def role_of(name: str, subset: str | None, default: Role | None = None) -> Role | None:
    """The part that a video plays.

    Args:
        name: Its name.
        subset: What its file calls its subset, or None.
        default: Of a video of which neither tells it.

    Raises:
        AnnotationError: If the word is none that is known.
    """
    told = role_by_name(name)
    if told is not None or subset is None:
        return told or default
    return parse_role(subset, name)


def plays(role: Role, name: str, subset: str | None) -> bool:
    """Whether a video plays a part; not so if its subset has a name that tells none."""
    told = role_by_name(name)
    return role == (told or (None if subset is None else _known(subset)))


def parse_role(word: str, where: str) -> Role:
    """The role that a word names, such as ``val``.

    Raises:
        AnnotationError: If it names none.
    """
    known = _known(word)
    if known is None:
        raise AnnotationError(
            f"{where}: {word!r} is no subset.", remedy="Use training, validation or testing."
        )
    return known


def same_subset(one: str, other: str) -> bool:
    """Whether two words name one subset: ``valid`` and ``Validation`` do."""
    return (_known(one) or one.strip().lower()) == (_known(other) or other.strip().lower())


def role_of_file(path: Path) -> Role | None:
    """The role that a file's name tells, as in ``activitynet_v1-3_train_metadata.csv``."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    found = {_ROLES[word] for word in words if word in _ROLES}
    return found.pop() if len(found) == 1 else None


def _known(word: str) -> Role | None:
    return _ROLES.get(word.strip().lower())


def role_by_name(name: str) -> Role | None:
    """The part that a THUMOS14 video plays; None for videos of other sets."""
    return next((role for prefix, role in THUMOS14_NAMES.items() if name.startswith(prefix)), None)
