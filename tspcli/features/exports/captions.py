"""Caption files on their way to a reader: which name each gets, and that no two get one."""

from __future__ import annotations

from collections.abc import Callable

from tspcli.annotations import Annotations, Segment
from tspcli.errors import AnnotationError
from tspcli.features.exports.target import ExportPlan

Captions = list[tuple[str, tuple[Segment, ...], float]]
"""(Name in the reader's annotations, captions, duration in seconds) of each video."""

NO_CAPTIONS = "No captions of the exported videos were given, so none are written."


def captions_by_name(
    plan: ExportPlan, name_of: Callable[[Annotations], str]
) -> dict[str, Captions]:
    """The captions of exported videos by the name of the file to write, without its ending.

    Args:
        plan: The export.
        name_of: The name under which a given file is written again.

    Raises:
        AnnotationError: If two given files would become one.
    """
    if plan.annotations is None:
        return {}
    exported = {video.annotated_as: video for video in plan.videos}
    found: dict[str, Captions] = {}
    given: dict[str, Annotations] = {}
    for file in plan.annotations.of_kind("captions"):
        chosen = [
            (exported[name].annotation_name, video.segments, video.duration_s or 0.0)
            for name, video in plan.annotations.named(file).items()
            if name in exported
        ]
        if not chosen:
            continue
        name = name_of(file)
        if name in given:
            raise AnnotationError(
                f"{given[name].path} and {file.path} would both be written as {name}.",
                remedy="Join them into one file, or give each in an export of its own.",
            )
        given[name] = file
        found[name] = chosen
    return found
