"""Which part a video plays: the words of the files, and what they mean.

ActivityNet trains on ``training`` and evaluates on ``validation``. THUMOS14 trains on its
validation videos and evaluates on its test videos, so that one word means two things, and a
THUMOS14 video is told by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tspcli.errors import AnnotationError

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
