"""Reading annotations of any dialect, alone or several files seen as one.

A file's content decides on its dialect, not its name. Of several files, one may supply what another
lacks, such as subsets or durations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

from tspcli.annotations.dialects import DIALECTS, Dialect, Role
from tspcli.annotations.segments import (
    AnnotatedVideo,
    Annotations,
    Kind,
    Segment,
    parse_role,
    role_of,
    role_of_file,
)
from tspcli.annotations.text_files import Place, Source, source_sha256
from tspcli.core.files import absolute
from tspcli.core.text import counted, refuses_damage
from tspcli.core.video_names import pair_names
from tspcli.errors import AnnotationError, UsageError

AnyPath = TypeVar("AnyPath", bound="str | Path")

_SAME_TIME_S = 0.5
"""Times of an action in two files that differ by at most this are the same, rounded."""

_SAME_DURATION_S = 1.0
"""Likewise for durations, which differ by as much between containers and measurements."""


@refuses_damage(AnnotationError, "Give the annotation file as its authors publish it.")
def read_annotations(
    path: str | Path, dialect: str | None = None, *, columns: Mapping[str, str] | None = None
) -> Annotations:
    """Read annotations of any dialect; nothing is left out.

    Args:
        path: A file, or a folder for dialects of several files.
        dialect: A name in :data:`~tspcli.annotations.dialects.DIALECTS`; detected if None.
        columns: For tables: the names of the columns ``video``, ``start``, ``end`` and ``label``
            where they are not recognised.

    Raises:
        AnnotationError: If the source is missing, in no known dialect, or breaks its dialect's
            rules, with the place and the value.
        UsageError: If the dialect is unknown, or columns are named for another one than ``table``.
    """
    if columns and dialect not in (None, "table"):
        raise UsageError(f"Dialect {dialect!r} has no columns to name.", option="--column")
    source = Source(path, columns)
    found_dialect, module = _dialect_of(source, "table" if columns else dialect)
    found: Annotations = module.read(source)
    found.dialect = found_dialect.name
    for name, video in found.items():
        values = {"duration": video.duration_s, "frames": video.n_frames, "fps": video.fps}
        for what, value in values.items():
            if value is not None and value < 0:
                raise Place(path, video=name, field=what).error(
                    f"{value:g} is negative.", value=value
                )
    return found


def columns_of(
    paths: Sequence[AnyPath], columns: Mapping[str, str] | None
) -> dict[AnyPath, Mapping[str, str]]:
    """The columns that the user named, for each of some files that is a table with one of them.

    Raises:
        AnnotationError: If a file cannot be read.
        UsageError: If columns are named, and no table has one of them.
    """
    if not columns:
        return {}
    sources = {path: Source(path) for path in paths}
    named = {
        path: columns
        for path, source in sources.items()
        if source.is_table and set(columns.values()) & set(source.table().columns)
    }
    if not named:
        first = next(iter(columns.values()))
        raise UsageError(f"No table has a column {first!r}.", option="--column", value=first)
    return named


def _dialect_of(source: Source, name: str | None) -> tuple[Dialect, ModuleType]:
    if name is not None and name not in DIALECTS:
        raise UsageError(
            f"There is no dialect {name!r}; the dialects are {', '.join(DIALECTS)}.", value=name
        )
    # Entries of others first: they are made for something more special than our own.
    for dialect in DIALECTS.added_first() if name is None else [DIALECTS[name]]:
        module = import_module(dialect.module)
        if name is not None or module.detects(source):
            return dialect, module
    known = "; ".join(f"{dialect.summary} ({dialect.name})" for dialect in DIALECTS.values())
    raise AnnotationError(
        f"{source.path} is not in any known dialect of annotations.",
        remedy=f"The dialects are: {known}.",
        path=source.path,
    )


def read_actions(
    path: str | Path,
    subset: str | None = None,
    *,
    role: Role | None = None,
    dialect: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Annotations:
    """Read actions of any dialect, without ambiguous stretches.

    Args:
        path: As for :func:`read_annotations`.
        subset: Keep only these videos, by the source's own word for them; a source without subsets
            counts as one.
        role: If no subset is named, keep only the videos that play this part.
        dialect: As for :func:`read_annotations`.
        columns: As for :func:`read_annotations`.

    Raises:
        AnnotationError: As :func:`read_annotations`; also if the source holds no actions, or no
            video belongs to the subset.
        UsageError: As :func:`read_annotations`.
    """
    found = read_annotations(path, dialect, columns=columns)
    if found.kind != "actions":
        raise AnnotationError(
            f"{path} holds {found.kind}, not actions.", path=path, kind=found.kind
        )
    chosen = found.role(role) if subset is None and role is not None else found.subset(subset)
    return chosen.classed()


@dataclass(frozen=True)
class AnnotationOrigin:
    """Where actions were read from, so that a run can read them again.

    Attributes:
        path: The absolute path of the file or folder.
        sha256: Of its content, see :func:`~tspcli.annotations.text_files.source_sha256`.
        dialect: Its dialect.
    """

    path: str
    sha256: str
    dialect: str

    @classmethod
    def of(cls, annotations: Annotations) -> AnnotationOrigin | None:
        """The origin of annotations; None if they were read from no file that is there."""
        if annotations.path is None or not annotations.dialect:
            return None
        try:
            sha256 = source_sha256(annotations.path)
        except OSError:
            return None
        return cls(absolute(annotations.path), sha256, annotations.dialect)

    def read(self) -> Annotations:
        """All its actions, of every subset.

        Raises:
            AnnotationError: If it has changed or does not exist any more.
        """
        path = Path(self.path)
        try:
            is_same = source_sha256(path) == self.sha256
        except (OSError, ValueError) as error:  # a ValueError: no path at all
            text = f"{path} cannot be read any more ({getattr(error, 'strerror', error)})."
            raise AnnotationError(text, path=path) from error
        if not is_same:
            raise AnnotationError(f"{path} has changed.", path=path, sha256=self.sha256)
        return read_actions(path, dialect=self.dialect)


@dataclass
class AnnotationSet:
    """Several files seen as one, with subsets as roles: training, validation or testing."""

    files: list[Annotations]

    @property
    def videos(self) -> dict[str, AnnotatedVideo]:
        """Every annotated video, by its name in the first file that has it.

        Raises:
            AnnotationError: If files contradict each other, or a name could mean either of two
                videos.
        """
        return self._merged.videos

    @property
    def notes(self) -> list[str]:
        """Contradictions that are not errors, and which side was taken."""
        return _duration_notes(self._merged.durations)

    def notes_on(self, name: str) -> list[str]:
        """:attr:`notes` for one video."""
        return _duration_notes([found for found in self._merged.durations if found.name == name])

    @cached_property
    def labels(self) -> list[str]:
        """All action names, sorted; videos without features count, which keeps ids stable."""
        return sorted({label for file in self.of_kind("actions") for label in file.labels()})

    def of_kind(self, kind: Kind) -> Iterator[Annotations]:
        """The files of one kind."""
        return (file for file in self.files if file.kind == kind)

    def named(self, file: Annotations) -> dict[str, AnnotatedVideo]:
        """The videos of one of the files, by their names in :attr:`videos`."""
        names = next(n for f, n in zip(self.files, self._merged.names, strict=True) if f is file)
        return {names[name]: video for name, video in file.items()}

    @cached_property
    def _merged(self) -> _Merged:
        merged = _Merged()
        for file in self.files:
            merged.add(file)
        return merged


def read_together(
    paths: Sequence[str | Path],
    *,
    subset: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> AnnotationSet:
    """Read annotation files of any known dialect.

    Args:
        paths: The files. One may supply what another lacks, such as subsets or durations.
        subset: The subset of all videos for which no file gives one.
        columns: Names of columns of tables without a recognised header, as for
            :func:`read_annotations`; other files are read as they are.

    Raises:
        AnnotationError: If a file cannot be read, or gives an unknown subset.
    """
    given = None if subset is None else parse_role(subset, "--subset")
    named = columns_of(paths, columns)
    files = []
    for path in paths:
        file = read_annotations(path, columns=named.get(path))
        default = given or role_of_file(Path(path))
        for name, video in file.items():
            file[name] = replace(video, subset=role_of(name, file.part(video), default))
        files.append(file)
    return AnnotationSet(files)


class _OtherDuration(NamedTuple):
    """A duration on which files disagree.

    Attributes:
        name: The video.
        taken_s: The duration that is used, from the first file that gives one.
        other_s: The other one.
        path: The file that gives the other one.
    """

    name: str
    taken_s: float
    other_s: float
    path: Path | None

    @property
    def apart_s(self) -> float:
        """The difference."""
        return abs(self.taken_s - self.other_s)


@dataclass
class _Merged:
    """The files merged so far.

    Attributes:
        videos: The videos.
        names: For each file, the names in ``videos`` by its own.
        with_actions: The videos whose segments are actions, with the file that gave them.
        durations: Where files disagree about durations.
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
                    f"{file.path} annotates {name!r} differently from {self.with_actions[name]}: "
                    f"{difference}.",
                    path=file.path,
                    video=name,
                )
        if known.subset and new.subset and known.subset != new.subset:
            raise AnnotationError(
                f"{file.path} puts {name!r} into {new.subset}, an earlier file into "
                f"{known.subset}.",
                path=file.path,
                video=name,
                value=new.subset,
            )
        taken, other = known.duration_s, new.duration_s
        if taken is not None and other is not None and abs(taken - other) > _SAME_DURATION_S:
            self.durations.append(_OtherDuration(name, taken, other, file.path))
        # Captions are segments too, but a merged video is asked for actions.
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


def _duration_notes(durations: Sequence[_OtherDuration]) -> list[str]:
    if not durations:
        return []
    worst = max(durations, key=lambda found: (found.apart_s, found.name))
    return [
        f"The annotation files disagree about the duration of {counted(len(durations), 'video')}; "
        f"the first file's is used. The largest difference is at {worst.name!r}: "
        f"{worst.taken_s:g} s, but {worst.other_s:g} s in {worst.path}."
    ]


def _difference(known: tuple[Segment, ...], new: tuple[Segment, ...]) -> str:
    """The first difference between two files' actions of a video in words, or nothing."""
    if len(known) != len(new):
        return f"{len(new)} actions, not {len(known)}"
    for one, other in zip(*(sorted(s, key=_order) for s in (known, new)), strict=True):
        apart = max(abs(one.start_s - other.start_s), abs(one.end_s - other.end_s))
        if one.label != other.label or apart > _SAME_TIME_S:
            return f"{_shown(other)}, not {_shown(one)}"
    return ""


def _order(segment: Segment) -> tuple[str, float, float]:
    return segment.label, segment.start_s, segment.end_s


def _shown(segment: Segment) -> str:
    return f"{segment.label!r} from {segment.start_s:g} to {segment.end_s:g} s"
