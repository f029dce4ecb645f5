"""Several files of annotations seen as one: what one lacks another may tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tspcli.annotations.model import AnnotatedVideo, Annotations, Kind
from tspcli.annotations.reading import read_annotations
from tspcli.annotations.subsets import parse_role, role_of, role_of_file
from tspcli.errors import AnnotationError


@dataclass
class AnnotationSet:
    """Files whose videos' subsets are told as roles: training, validation or testing."""

    files: list[Annotations]

    @cached_property
    def videos(self) -> dict[str, AnnotatedVideo]:
        """Every annotated video by its canonical ID (without ``v_``)."""
        merged: dict[str, AnnotatedVideo] = {}
        for file in self.files:
            for key, video in file.by_id().items():
                merged[key] = _merge(merged[key], video, key, file) if key in merged else video
        return merged

    @cached_property
    def labels(self) -> list[str]:
        """All action names, sorted; those of videos without features too, to keep ids stable."""
        return sorted({label for file in self.of_kind("actions") for label in file.labels()})

    def of_kind(self, kind: Kind) -> Iterator[Annotations]:
        """The files of one kind."""
        return (file for file in self.files if file.kind == kind)


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


def _merge(
    known: AnnotatedVideo, new: AnnotatedVideo, name: str, file: Annotations
) -> AnnotatedVideo:
    both = known.segments and new.segments and file.kind == "actions"
    if both and [s.label for s in known.segments] != [s.label for s in new.segments]:
        raise AnnotationError(
            f"{file.path} annotates {name!r} otherwise than the file before it.",
            remedy="Give each video's annotations once.",
        )
    if known.subset and new.subset and known.subset != new.subset:
        raise AnnotationError(
            f"{file.path} puts {name!r} into {new.subset}, an earlier file into {known.subset}.",
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
