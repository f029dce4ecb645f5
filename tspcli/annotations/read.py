"""Reading annotations of any dialect, which is told from the content, not from the name.

Several files of annotations seen as one: what one lacks another may tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tspcli.annotations.dialects.activitynet import parse_json_annotations
from tspcli.annotations.dialects.tables import parse_table
from tspcli.annotations.dialects.thumos14 import is_class_file, read_class_files, with_subsets
from tspcli.annotations.segments import (
    AnnotatedVideo,
    Annotations,
    Kind,
    Role,
    Segment,
    parse_role,
    role_of,
    role_of_file,
)
from tspcli.annotations.text_files import looks_like_json, read_text
from tspcli.core.text import counted, refuses_damage
from tspcli.core.video_names import pair_names
from tspcli.errors import AnnotationError

DIALECTS = (
    "ActivityNet JSON, anet_anno_action.json, video_info_new.csv, the tables of official TSP, "
    "G-TAD's val_Annotation.csv, THUMOS14's folder of class files, any table of video, start, end "
    "and label, or captions as BMT or PDVC have them"
)


@refuses_damage(AnnotationError, "Give the annotation file as its authors publish it.")
def read_annotations(path: str | Path) -> Annotations:
    """Read annotations of any known dialect, as they are: nothing is left out.

    Args:
        path: A JSON file (ActivityNet's ``database``; BSN's and its successors'; captions), a table
            (official ground truth or metadata, G-TAD's THUMOS14 table, BSN's ``video_info``, BMT's
            captions, any other with columns of video, start, end and label), or THUMOS14's folder
            of per-class text files.

    Raises:
        AnnotationError: If it is missing, in no dialect that is known, or not what its dialect
            promises, with the place and the value.
    """
    path = Path(path)
    found = _read(path)
    for name, video in found.items():
        told = {"seconds": video.duration_s, "frames": video.n_frames, "frames a second": video.fps}
        for unit, value in told.items():
            if value is not None and value < 0:
                raise AnnotationError(
                    f"{path}: {name!r} has {value:g} {unit}.", remedy="Correct it in that file."
                )
    return found


def _read(path: Path) -> Annotations:
    if path.is_dir() or is_class_file(path):
        return with_subsets(read_class_files(path))
    text = read_text(path, "annotation file")
    if looks_like_json(text):
        return parse_json_annotations(text, path)
    found = parse_table(text, path)
    if found is None:
        raise AnnotationError(
            f"{path} is in no dialect of annotations that is known here.",
            remedy=f"Give {DIALECTS}.",
        )
    return found


def read_actions(
    path: str | Path, subset: str | None = None, *, role: Role | None = None
) -> Annotations:
    """Read the actions of any dialect that tells them, without ambiguous stretches.

    Args:
        path: As for :func:`read_annotations`.
        subset: Keep these videos alone, by the source's own word for them; a source that tells no
            subsets is one.
        role: Where no subset is named: keep the videos that play this part.

    Raises:
        AnnotationError: As :func:`read_annotations`; also if it holds no actions, or no video
            belongs to the subset.
    """
    found = read_annotations(path)
    if found.kind != "actions":
        raise AnnotationError(f"{path} holds {found.kind}, no actions.", remedy="Give actions.")
    chosen = found.role(role) if subset is None and role is not None else found.subset(subset)
    return chosen.classed()


_SAME_TIME_S = 0.5
"""Up to this far apart two files' times of one action are one time, rounded."""

_SAME_DURATION_S = 1.0
"""The same for durations: containers, and what was measured of them, differ by so much."""


@dataclass
class AnnotationSet:
    """Files whose videos' subsets are told as roles: training, validation or testing."""

    files: list[Annotations]

    @property
    def videos(self) -> dict[str, AnnotatedVideo]:
        """Every annotated video, by its name in the first file that has it.

        Raises:
            AnnotationError: If files contradict each other, or it cannot be told which of two
                videos a name means.
        """
        return self._merged.videos

    @property
    def notes(self) -> list[str]:
        """Contradictions that are no errors, and which side was taken."""
        return _told_of(self._merged.durations)

    def notes_on(self, name: str) -> list[str]:
        """:attr:`notes`, of one video alone."""
        return _told_of([found for found in self._merged.durations if found.name == name])

    @cached_property
    def labels(self) -> list[str]:
        """All action names, sorted; those of videos without features too, to keep ids stable."""
        return sorted({label for file in self.of_kind("actions") for label in file.labels()})

    def of_kind(self, kind: Kind) -> Iterator[Annotations]:
        """The files of one kind."""
        return (file for file in self.files if file.kind == kind)

    def named(self, file: Annotations) -> dict[str, AnnotatedVideo]:
        """One of the files' videos, by their names in :attr:`videos`."""
        names = next(n for f, n in zip(self.files, self._merged.names, strict=True) if f is file)
        return {names[name]: video for name, video in file.items()}

    @cached_property
    def _merged(self) -> _Merged:
        merged = _Merged()
        for file in self.files:
            merged.add(file)
        return merged


def read_together(paths: Sequence[str | Path], *, subset: str | None = None) -> AnnotationSet:
    """Read annotation files of any known dialect.

    Args:
        paths: The files. What one lacks (subsets, durations) another may tell.
        subset: The subset of all videos for which no file tells one.

    Raises:
        AnnotationError: If a file cannot be read, or tells a subset that is none.
    """
    given = None if subset is None else parse_role(subset, "--subset")
    files = []
    for path in paths:
        file = read_annotations(path)
        default = given or role_of_file(Path(path))
        for name, video in file.items():
            file[name] = replace(video, subset=role_of(name, video.subset, default))
        files.append(file)
    return AnnotationSet(files)


class _OtherDuration(NamedTuple):
    """A duration that another file tells of a video.

    Attributes:
        name: The video.
        taken_s: The duration that is taken, of the first file that tells one.
        other_s: The other one.
        path: Whose that is.
    """

    name: str
    taken_s: float
    other_s: float
    path: Path | None

    @property
    def apart_s(self) -> float:
        """By how much they differ."""
        return abs(self.taken_s - self.other_s)


@dataclass
class _Merged:
    """What was merged so far.

    Attributes:
        videos: The videos.
        names: For each file the names in ``videos`` by its own.
        with_actions: The videos whose segments are actions, and the file that told them.
        durations: Where files tell other durations than those that are taken.
    """

    videos: dict[str, AnnotatedVideo] = field(default_factory=dict)
    names: list[dict[str, str]] = field(default_factory=list)
    with_actions: dict[str, Path | None] = field(default_factory=dict)
    durations: list[_OtherDuration] = field(default_factory=list)

    def add(self, file: Annotations) -> None:
        pairs = pair_names(file, self.videos)
        names = {name: pairs.get(name, name) for name in file}
        self.names.append(names)
        for own, video in file.items():
            name = names[own]
            known = self.videos.get(name)
            self.videos[name] = video if known is None else self._merge(known, video, name, file)
            if file.kind == "actions" and video.segments:
                self.with_actions.setdefault(name, file.path)

    def _merge(
        self, known: AnnotatedVideo, new: AnnotatedVideo, name: str, file: Annotations
    ) -> AnnotatedVideo:
        actions = file.kind == "actions" and bool(new.segments)
        if actions and name in self.with_actions:
            difference = _difference(known.segments, new.segments)
            if difference:
                raise AnnotationError(
                    f"{file.path} annotates {name!r} otherwise than {self.with_actions[name]}: "
                    f"{difference}.",
                    remedy="Give each video's annotations once.",
                )
        if known.subset and new.subset and known.subset != new.subset:
            raise AnnotationError(
                f"{file.path} puts {name!r} into {new.subset}, an earlier file into "
                f"{known.subset}.",
                remedy="Give files that agree.",
            )
        taken, other = known.duration_s, new.duration_s
        if taken is not None and other is not None and abs(taken - other) > _SAME_DURATION_S:
            self.durations.append(_OtherDuration(name, taken, other, file.path))
        # Captions are segments too, but actions are what is asked of a merged video.
        own = new.segments if actions and name not in self.with_actions else known.segments
        return replace(
            known,
            segments=own or new.segments,
            subset=known.subset or new.subset,
            duration_s=taken if taken is not None else other,
            n_frames=known.n_frames if known.n_frames is not None else new.n_frames,
            fps=known.fps if known.fps is not None else new.fps,
            feature_frame=known.feature_frame or new.feature_frame,
        )


def _told_of(durations: Sequence[_OtherDuration]) -> list[str]:
    if not durations:
        return []
    worst = max(durations, key=lambda found: (found.apart_s, found.name))
    return [
        f"The annotation files tell different durations of {counted(len(durations), 'video')}, and "
        f"the first file's count; the most they differ for {worst.name!r}: {worst.taken_s:g} s, in "
        f"{worst.path} {worst.other_s:g} s."
    ]


def _difference(known: tuple[Segment, ...], new: tuple[Segment, ...]) -> str:
    """The first difference between two files' actions of a video in words; empty if none."""
    if len(known) != len(new):
        return f"{len(new)} actions, not {len(known)}"
    for one, other in zip(*(sorted(s, key=_order) for s in (known, new)), strict=True):
        apart = max(abs(one.start_s - other.start_s), abs(one.end_s - other.end_s))
        if one.label != other.label or apart > _SAME_TIME_S:
            return f"{_told(other)}, not {_told(one)}"
    return ""


def _order(segment: Segment) -> tuple[str, float, float]:
    return segment.label, segment.start_s, segment.end_s


def _told(segment: Segment) -> str:
    return f"{segment.label!r} from {segment.start_s:g} to {segment.end_s:g} s"
