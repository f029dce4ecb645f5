"""What annotations say, whatever dialect they came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from tspcli.errors import AnnotationError

Subset = Literal["training", "validation", "testing"]
"""The part that a video plays, in ActivityNet's words. THUMOS14's validation videos are trained on
and its test videos evaluated on, so they are ``training`` and ``validation`` here."""

Kind = Literal["actions", "captions", "metadata"]

PREFIX = "v_"
"""What ActivityNet's file names put before the video's ID."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with a label: an action, or a caption.

    Attributes:
        start_s: Start in seconds.
        end_s: End in seconds.
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
        name: Its name, as the file writes it.
        segments: Its segments, in the file's order.
        subset: The part it plays, or None if the file does not tell.
        duration_s: Annotated duration in seconds, or None.
        n_frames: Annotated number of frames, or None.
        fps: Annotated frames a second of the original video, or None.
        feature_frame: The frames that features cover, in BSN's dialect, or None.
    """

    name: str
    segments: tuple[Segment, ...] = ()
    subset: Subset | None = None
    duration_s: float | None = None
    n_frames: int | None = None
    fps: float | None = None
    feature_frame: float | None = None


@dataclass
class AnnotationFile:
    """One file: its videos by name."""

    path: Path
    dialect: str
    kind: Kind
    videos: dict[str, AnnotatedVideo] = field(default_factory=dict)

    @cached_property
    def prefix(self) -> str:
        """``v_`` if every name in the file starts with it, else nothing."""
        return shared_prefix(self.videos)


@dataclass
class AnnotationSet:
    """All files given for one export, seen as one: what one lacks another may tell."""

    files: list[AnnotationFile]

    @cached_property
    def videos(self) -> dict[str, AnnotatedVideo]:
        """Every annotated video by its canonical ID (without ``v_``)."""
        merged: dict[str, AnnotatedVideo] = {}
        for file in self.files:
            for video in file.videos.values():
                key = canonical_id(video.name, file.prefix)
                merged[key] = _merge(merged[key], video, file) if key in merged else video
        return merged

    @cached_property
    def labels(self) -> list[str]:
        """All action names, sorted; those of videos without features too, to keep ids stable."""
        names = {
            segment.label
            for file in self.files
            if file.kind == "actions"
            for video in file.videos.values()
            for segment in video.segments
        }
        return sorted(names)

    @property
    def has_actions(self) -> bool:
        """Whether any file holds actions."""
        return any(file.kind == "actions" for file in self.files)

    def of_kind(self, kind: Kind) -> Iterator[AnnotationFile]:
        """The files of one kind."""
        return (file for file in self.files if file.kind == kind)


def shared_prefix(names: Iterable[str]) -> str:
    """``v_`` if there are names and all start with it, else nothing.

    Decided for a whole file, not name by name: an ID may itself begin with ``v_``.
    """
    names = list(names)
    return PREFIX if names and all(name.startswith(PREFIX) for name in names) else ""


def canonical_id(name: str, prefix: str) -> str:
    """The name without its file's prefix, by which files with and without ``v_`` meet."""
    return name.removeprefix(prefix)


def _merge(known: AnnotatedVideo, new: AnnotatedVideo, file: AnnotationFile) -> AnnotatedVideo:
    both = known.segments and new.segments and file.kind == "actions"
    if both and [s.label for s in known.segments] != [s.label for s in new.segments]:
        raise AnnotationError(
            f"{file.path} annotates {new.name!r} otherwise than the file before it.",
            remedy="Give each video's annotations once.",
        )
    if known.subset and new.subset and known.subset != new.subset:
        raise AnnotationError(
            f"{file.path} puts {new.name!r} into {new.subset}, an earlier file into "
            f"{known.subset}.",
            remedy="Give files that agree.",
        )
    return replace(
        known,
        segments=known.segments or new.segments,
        subset=known.subset or new.subset,
        duration_s=known.duration_s if known.duration_s is not None else new.duration_s,
        n_frames=known.n_frames if known.n_frames is not None else new.n_frames,
        fps=known.fps if known.fps is not None else new.fps,
        feature_frame=known.feature_frame or new.feature_frame,
    )
