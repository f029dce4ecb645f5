"""Thinking an export through: every name, duration and number of rows, and who is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tspcli.annotations import AnnotationSet, pair_names
from tspcli.annotations.subsets import role_by_name
from tspcli.errors import ExportError
from tspcli.features.exports.gtad_thumos import original_rate
from tspcli.features.exports.naming import check_file_name, exported_names, reader_prefix
from tspcli.features.exports.options import DataSet, ExportOptions, ExportRequest
from tspcli.features.exports.rows import plan_rows
from tspcli.features.exports.sources import Sources
from tspcli.features.exports.staging import companions_of
from tspcli.features.exports.target import ExportPlan, PlannedVideo, Target
from tspcli.wording import counted

_SHOWN = 3
_STORE_ONLY = {
    "checksum",
    "warnings",
    "frame_rate",
    "clip_length",
    "stride",
    "grid_rate",
    "duration_s",
    "source_fps",
    "source_frames",
}


def make_plan(
    target: Target, request: ExportRequest, sources: Sources, annotations: AnnotationSet | None
) -> ExportPlan:
    """Decide every name, duration and number of rows of an export, and check them."""
    keys = [video.key for video in sources.videos]
    data_set = request.options.data_set or _data_set(keys)
    options = target.resolve(request.options, data_set)
    annotated = annotations.videos if annotations else {}
    videos: list[PlannedVideo] = []
    names = exported_names(keys, options.name_prefix, target.wants_prefix(data_set))
    prefix = reader_prefix(names.values(), options.name_prefix)
    pairs = pair_names(keys, annotated)
    for source in sources.videos:
        name = names[source.key]
        check_file_name(name, options.suffix)
        known = pairs.get(source.key)
        video = PlannedVideo(
            source,
            name,
            target.annotation_name(name, prefix),
            known,
            None if known is None else annotated[known],
        )
        video = replace(video, span_s=target.span_s(video, options))
        videos.append(plan_rows(video, options, original_rate(video)))
    is_file = target.is_file(options, request.out)
    plan = ExportPlan(
        options,
        data_set,
        sources.dim,
        videos,
        annotations,
        _missing(videos, annotations),
        sources.sampling,
        request.out,
        companions_of(request.out) if is_file else request.out,
        sources.stores[0].metadata if _agreed(sources) else None,
        lambda video: _extra(sources, video),
    )
    plan.notes += annotations.notes if annotations else []
    _check_missing(plan, options)
    _note_unannotated(plan)
    if target.trains and options.missing != "error":
        _note_absent_subsets(plan)
    target.check(plan)
    return plan


def _data_set(keys: list[str]) -> DataSet:
    thumos = all(role_by_name(key) is not None for key in keys)
    return "thumos14" if thumos else "activitynet"


def _agreed(sources: Sources) -> bool:
    """Whether every store says how it was made (that they agree is checked before)."""
    return all(store.metadata.settings for store in sources.stores)


def _extra(sources: Sources, video: PlannedVideo) -> dict[str, Any]:
    attributes = sources.features(video.source).attrs
    return {name: value for name, value in attributes.items() if name not in _STORE_ONLY}


def _missing(videos: list[PlannedVideo], annotations: AnnotationSet | None) -> list[str]:
    """Annotated videos without features, as the reader's annotations would name them."""
    if annotations is None:
        return []
    found = {v.annotated_as: v.annotation_name for v in videos if v.annotated_as is not None}
    if not found:
        raise ExportError(
            f"No exported video is in the annotations. The stores have "
            f"{_some([video.source.key for video in videos])}; the annotations have "
            f"{_some(sorted(annotations.videos))}.",
            remedy="Check that they belong together; names are compared with and without v_.",
        )
    # Renamed as most of the others are.
    ways = Counter(_way(theirs, readers) for theirs, readers in found.items())
    add, strip = ways.most_common(1)[0][0]
    missing = [name for name in sorted(annotations.videos) if name not in found]
    return [
        (add if not name.startswith(add) else "") + name.removeprefix(strip) for name in missing
    ]


def _way(name: str, other: str) -> tuple[str, str]:
    """What is put before a name, and what is taken from it, to make it the other."""
    if other.endswith(name):
        return other[: len(other) - len(name)], ""
    return ("", name[: len(name) - len(other)]) if name.endswith(other) else ("", "")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown + " …" * (len(names) > _SHOWN) if names else "no video"


def _check_missing(plan: ExportPlan, options: ExportOptions) -> None:
    if not plan.missing:
        return
    if options.missing == "error":
        shown = ", ".join(map(repr, plan.missing[:_SHOWN]))
        raise ExportError(
            f"{len(plan.missing)} of {len(plan.missing) + len(plan.videos) - plan.n_unannotated} "
            f"annotated videos have no features: {shown}"
            + (" …." if len(plan.missing) > _SHOWN else "."),
            remedy="Use --missing skip to leave them out of the written annotations, or "
            "--missing list to list them in missing_files.txt too.",
        )
    for name in plan.missing:
        if options.missing == "list" and ("\n" in name or "\r" in name):
            raise ExportError(f"{name!r} cannot stand in a list of one name a line.")
    plan.notes.append(
        f"Left out: {counted(len(plan.missing), 'annotated video')} without features (the first: "
        f"{plan.missing[0]!r})."
    )


def _note_unannotated(plan: ExportPlan) -> None:
    if count := plan.n_unannotated:
        first = next(video.source.key for video in plan.videos if video.annotated is None)
        subject = f"{counted(count, 'exported video')} {'is' if count == 1 else 'are'}"
        plan.notes.append(
            f"{subject} in no annotation (the first: {first!r}): the features are written, the "
            "annotation files do not list them."
        )


def _note_absent_subsets(plan: ExportPlan) -> None:
    """Readers look for all subsets in one place; half of the stores is easily forgotten."""
    if plan.annotations is None:
        return
    present = {video.annotated.subset for video in plan.videos if video.annotated}
    for subset in ("training", "validation"):
        told = any(video.subset == subset for video in plan.annotations.videos.values())
        if told and subset not in present:
            plan.notes.append(
                f"No {subset} video is exported, though the annotations have some: readers look "
                "for all subsets in one place, so give the stores of all of them."
            )
