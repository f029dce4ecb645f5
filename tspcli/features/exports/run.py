"""From a request to an export: plan everything, then write one video at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tspcli import __version__
from tspcli.annotations import (
    AnnotationSet,
    pair_names,
    read_together,
)
from tspcli.annotations.labels import read_label_mapping
from tspcli.errors import ExportError, UsageError
from tspcli.features.exports.actionformer import ActionFormer
from tspcli.features.exports.gtad_thumos import original_rate
from tspcli.features.exports.naming import (
    check_file_name,
    check_rule,
    exported_names,
    reader_prefix,
)
from tspcli.features.exports.options import DataSet, ExportOptions, ExportRequest
from tspcli.features.exports.registry import TARGETS
from tspcli.features.exports.rows import plan_rows, read_rows
from tspcli.features.exports.sources import Sources
from tspcli.features.exports.staging import MANIFEST, check_free, companions_of, staged
from tspcli.features.exports.target import OWN_FILES, ExportPlan, PlannedVideo, Target, Usage
from tspcli.features.exports.timing import TimeError, worst_errors
from tspcli.timeline import Sampling
from tspcli.wording import counted

USAGE = "HOW_TO_USE.txt"
_THUMOS_NAMES = ("video_validation_", "video_test_")
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


@dataclass
class ExportReport:
    """What an export wrote.

    Attributes:
        target: The target's name.
        out: The folder or file.
        options: The choices, defaults filled in.
        data_set: Whose conventions were followed.
        n_videos: Videos written.
        n_rows: Rows written.
        width: Width of a row.
        missing: Annotated videos without features.
        unannotated: Videos written that no annotation mentions, if annotations were given.
        annotations: The annotation files written.
        time_errors: For each of the reader's ways to put rows in time, the worst distance from the
            centre of what they show.
        notes: What the user should know.
        usage: How to use the export.
    """

    target: str
    out: str
    options: Mapping[str, Any]
    data_set: str
    n_videos: int = 0
    n_rows: int = 0
    width: int = 0
    missing: list[str] = field(default_factory=list)
    unannotated: int = 0
    annotations: list[str] = field(default_factory=list)
    time_errors: dict[str, TimeError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    usage: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"tool_version": __version__, **asdict(self)}


def export_features(
    request: ExportRequest,
    *,
    sampling: Sampling | None = None,
    label_ids: Path | None = None,
    on_video: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write features as a reader expects them.

    Nothing is written before everything was checked, and nothing is left behind on an error: the
    output appears whole, by a rename.

    Args:
        request: What to write, for whom, and where.
        sampling: Where rows lie in time, for files that do not tell it (the released ones).
        label_ids: A JSON list of class names whose order is the class ids'.
        on_video: Called with (videos done, videos in all) after each video.

    Raises:
        ExportError: If the features cannot be written in that form.
        UsageError: If an option means nothing for the target, or does nothing here.
        StoreError: If a store cannot be read, or stores do not fit together.
        AnnotationError: If the annotations cannot be read, or lack what the reader needs.
    """
    target = _target(request.target)
    _check_given(request, label_ids)
    check_rule(request.options.name_prefix)
    out = request.out.absolute()
    with Sources(request.stores, sampling) as sources:
        if any(out == path.absolute() or out in path.absolute().parents for path in sources.paths):
            raise ExportError(
                f"{request.out} is, or holds, a store that is exported.", remedy="Change --out."
            )
        annotations = (
            read_together(request.annotations, subset=request.subset)
            if request.annotations
            else None
        )
        plan = make_plan(target, replace(request, out=out), sources, annotations)
        plan.label_ids = None if label_ids is None else _label_ids(label_ids)
        check_free(out, is_file=target.is_file(plan.options, out), overwrite=_over(plan))
        return _write(target, plan, sources, on_video)


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
        _missing(target, videos, annotations),
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


def _write(
    target: Target,
    plan: ExportPlan,
    sources: Sources,
    on_video: Callable[[int, int], None] | None,
) -> ExportReport:
    options = plan.options
    is_file = target.is_file(options, plan.out)
    with staged(plan.out, is_file=is_file, overwrite=_over(plan)) as staging:
        if staging.n_cleared:
            plan.notes.append(
                f"{counted(staging.n_cleared, 'unfinished export')} to this place, left by a "
                "process that was killed, was removed."
            )
        writer = target.open(plan, staging.main)
        try:
            odd = _write_videos(writer.write, plan, sources, on_video)
        finally:
            writer.close()
        if odd:
            plan.notes.append(
                f"{len(odd)} videos have values that are not finite (the first: {odd[0]!r})."
            )
        target.write_extras(plan, staging.main)
        paths: list[Path] = []
        if plan.annotations is not None:
            folder = staging.companions / "annotations"
            folder.mkdir()
            paths = target.write_annotations(plan, folder)
            plan.written = [path.name for path in paths]
            if not any(folder.iterdir()):
                folder.rmdir()
        if options.missing == "list":
            _list_missing(plan, staging.companions)
        usage = _with_own_files(target.usage(plan))
        for name, text in usage.files.items():
            (staging.companions / name).write_text(text, encoding="utf-8")
        report = ExportReport(
            target.name,
            str(plan.out),
            options.to_dict(),
            plan.data_set,
            n_videos=len(plan.videos),
            n_rows=sum(video.n_rows for video in plan.videos),
            width=plan.width,
            missing=plan.missing,
            unannotated=_unannotated(plan),
            annotations=[str(plan.annotation_folder / path.name) for path in paths],
            time_errors=worst_errors(target, plan),
            notes=plan.notes,
            usage=usage.text,
        )
        (staging.companions / USAGE).write_text(_usage_page(report), encoding="utf-8")
        (staging.companions / MANIFEST).write_text(
            json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8"
        )
    return report


def _write_videos(
    write: Callable[[PlannedVideo, Any], None],
    plan: ExportPlan,
    sources: Sources,
    on_video: Callable[[int, int], None] | None,
) -> list[str]:
    """Write all videos; return the keys of those with values that are not finite."""
    odd = []
    for number, video in enumerate(plan.videos, 1):
        features = sources.features(video.source)
        rows = read_rows(video, features, plan.width, plan.options.dtype)
        if not np.isfinite(rows).all():
            odd.append(video.source.key)
        write(video, rows)
        if on_video is not None:
            on_video(number, len(plan.videos))
    return odd


def _check_given(request: ExportRequest, label_ids: Path | None) -> None:
    """Refuse what would do nothing."""
    if label_ids is not None and request.target != ActionFormer.name:
        raise UsageError(
            f"--label-ids means nothing for {request.target}.",
            remedy=f"{ActionFormer.name} alone has class ids.",
        )
    if request.annotations:
        return
    for option, there in (
        ("--subset", request.subset is not None),
        ("--label-ids", label_ids is not None),
        ("--missing list", request.options.missing == "list"),
        ("--feature-frame keep", request.options.feature_frame == "keep"),
    ):
        if there:
            raise UsageError(
                f"{option} does nothing without annotations.",
                remedy=f"Add --annotations, or leave {option} away.",
            )


def _label_ids(path: Path) -> dict[str, int]:
    return {name: number for number, name in enumerate(read_label_mapping(path))}


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(
            f"There is no target {name!r}.", remedy=f"Use one of {', '.join(TARGETS)}."
        )
    return TARGETS[name]()


def _over(plan: ExportPlan) -> bool:
    return plan.options.overwrite


def _data_set(keys: list[str]) -> DataSet:
    thumos = all(key.startswith(_THUMOS_NAMES) for key in keys)
    return "thumos14" if thumos else "activitynet"


def _agreed(sources: Sources) -> bool:
    """Whether every store says how it was made (that they agree is checked before)."""
    return all(store.metadata.settings for store in sources.stores)


def _extra(sources: Sources, video: PlannedVideo) -> dict[str, Any]:
    attributes = sources.features(video.source).attrs
    return {name: value for name, value in attributes.items() if name not in _STORE_ONLY}


def _missing(
    target: Target, videos: list[PlannedVideo], annotations: AnnotationSet | None
) -> list[str]:
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
            f"{len(plan.missing)} of {len(plan.missing) + len(plan.videos) - _unannotated(plan)} "
            f"annotated videos have no features: {shown}"
            + (" …." if len(plan.missing) > _SHOWN else "."),
            remedy="Use --missing skip to leave them out of the written annotations, or "
            "--missing list to list them in missing_files.txt too.",
        )
    for name in plan.missing:
        if options.missing == "list" and ("\n" in name or "\r" in name):
            raise ExportError(f"{name!r} cannot stand in a list of one name a line.")
    plan.notes.append(
        f"{len(plan.missing)} annotated videos have no features and are left out (the first: "
        f"{plan.missing[0]!r})."
    )


def _note_unannotated(plan: ExportPlan) -> None:
    if count := _unannotated(plan):
        first = next(video.source.key for video in plan.videos if video.annotated is None)
        subject = "1 exported video is" if count == 1 else f"{count} exported videos are"
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


def _with_own_files(usage: Usage) -> Usage:
    """Say what stands for files that were not written, where there are any."""
    places = ["the lines above"] if str(OWN_FILES) in usage.text else []
    places += [name for name, text in usage.files.items() if str(OWN_FILES) in text]
    if not places:
        return usage
    told = f"{OWN_FILES} in {' and '.join(places)}: files of your own; this export wrote none of "
    return replace(usage, text=f"{usage.text}\n{told}that name.")


def _list_missing(plan: ExportPlan, folder: Path) -> None:
    path = folder / "missing_files.txt"
    if not path.exists():
        path.write_text("".join(f"{name}\n" for name in plan.missing), encoding="utf-8")


def _unannotated(plan: ExportPlan) -> int:
    if plan.annotations is None:
        return 0
    return sum(video.annotated is None for video in plan.videos)


def _usage_page(report: ExportReport) -> str:
    lines = [f"{report.n_videos} videos for {report.target}, written by tspcli {__version__}.", ""]
    lines += [report.usage, ""]
    for clock, error in report.time_errors.items():
        lines.append(f"Time ({clock}): {error.told()}.")
    lines += [""] * bool(report.notes) + [f"Note: {note}" for note in report.notes]
    return "\n".join(lines) + "\n"
