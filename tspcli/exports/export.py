"""Write features as a reader expects them, one video at a time, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.annotations import read_label_mapping, read_together
from tspcli.core.files import remove_leftovers, replacing_together
from tspcli.core.progress import Reporter
from tspcli.core.run_dir import one_writer
from tspcli.core.text import counted
from tspcli.core.version import __version__
from tspcli.errors import ExportError, UsageError
from tspcli.exports.export_options import ExportRequest
from tspcli.exports.export_plan import (
    OWN_FILES,
    ExportPlan,
    PlannedVideo,
    TimeError,
    worst_errors,
)
from tspcli.exports.naming import check_rule, companions_of
from tspcli.exports.planner import make_plan, read_rows
from tspcli.exports.target import Target, Usage
from tspcli.exports.targets import TARGETS
from tspcli.sampling import Sampling
from tspcli.store.store_set import StoreSet

MANIFEST = "export.json"
"""Part of every export; only folders with it are ever replaced."""
USAGE = "HOW_TO_USE.txt"
TASK = "Exporting"
"""The name of the task that is reported, with one step per video."""


@dataclass
class ExportReport:
    """What an export wrote.

    Attributes:
        target: The target's name.
        out: The folder or file.
        options: The choices, defaults filled in.
        data_set: The data set whose conventions were followed.
        n_videos: Videos written.
        n_rows: Rows written.
        width: Width of a row.
        missing: Annotated videos without features.
        unannotated: The number of exported videos that the given annotations do not mention.
        annotations: The annotation files written.
        time_errors: The largest time errors, for each of the reader's clocks.
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
    reporter: Reporter | None = None,
) -> ExportReport:
    """Write features as a reader expects them.

    Nothing is written before everything was checked, and nothing is left behind on an error: the
    complete output is renamed into its place.

    Args:
        request: What to write, for whom, and where.
        sampling: Where rows lie in time, for files without it (the released ones).
        label_ids: A JSON list of class names; a name's index is its class id.
        reporter: Receives the number of videos written.

    Raises:
        ExportError: If the features cannot be written in that form.
        UsageError: If an option has no meaning for the target, or no effect here.
        StoreError: If a store cannot be read, or stores do not fit together.
        AnnotationError: If the annotations cannot be read, or lack what the reader needs.
    """
    target = load_target(request.target)
    _check_given(request, target, label_ids)
    check_rule(request.options.name_prefix)
    out = request.out.absolute()
    with StoreSet(request.stores, sampling=sampling, concat=request.concat) as sources:
        if any(out == path.absolute() or out in path.absolute().parents for path in sources.paths):
            raise ExportError(
                f"The output {request.out} is, or holds, an exported store.",
                option="--out",
                path=request.out,
            )
        annotations = (
            read_together(request.annotations, subset=request.subset, columns=request.columns)
            if request.annotations
            else None
        )
        plan = make_plan(target, replace(request, out=out), sources, annotations)
        plan.label_ids = None if label_ids is None else _label_ids(label_ids)
        check_free(out, is_file=target.is_file(plan.options, out), overwrite=plan.options.overwrite)
        return _write(target, plan, sources, reporter or Reporter())


def _write(target: Target, plan: ExportPlan, sources: StoreSet, reporter: Reporter) -> ExportReport:
    options = plan.options
    is_file = target.is_file(options, plan.out)
    with staged(plan.out, is_file=is_file, overwrite=plan.options.overwrite) as staging:
        if staging.n_cleared:
            plan.notes.append(
                f"Removed {counted(staging.n_cleared, 'unfinished export')} to this place, left "
                "by a killed process."
            )
        writer = target.open(plan, staging.main)
        try:
            odd = _write_videos(writer.write, plan, sources, reporter)
        finally:
            writer.close()
        if odd:
            plan.notes.append(
                f"{counted(len(odd), 'video')} with values that are not finite (the first: "
                f"{odd[0]!r})."
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
            plan.data_set.name,
            n_videos=len(plan.videos),
            n_rows=sum(video.n_rows for video in plan.videos),
            width=plan.width,
            missing=plan.missing,
            unannotated=plan.n_unannotated,
            annotations=[str(plan.annotation_folder / path.name) for path in paths],
            time_errors=_time_errors(target, plan),
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
    sources: StoreSet,
    reporter: Reporter,
) -> list[str]:
    """Write all videos; return the keys of those with values that are not finite."""
    odd = []
    reporter.start(TASK, len(plan.videos))
    for number, video in enumerate(plan.videos, 1):
        features = sources[video.source.key]
        rows = read_rows(video, features, plan.width, plan.options.dtype)
        if not np.isfinite(rows).all():
            odd.append(video.source.key)
        write(video, rows)
        reporter.advance(TASK, number)
    return odd


def _time_errors(target: Target, plan: ExportPlan) -> dict[str, TimeError]:
    """The time errors of the videos that the reader loads: if any are annotated, only those."""
    loaded = [v for v in plan.videos if plan.annotations is None or v.annotated_as is not None]
    return worst_errors(loaded, lambda video: target.clocks(video, plan))


def _check_given(request: ExportRequest, target: Target, label_ids: Path | None) -> None:
    """Refuse options without effect."""
    if label_ids is not None and not target.takes_label_ids:
        raise UsageError(
            f"--label-ids has no meaning for {target.name}: it has no class ids.",
            option="--label-ids",
        )
    if request.annotations:
        return
    for option, there in (
        ("--subset", request.subset is not None),
        ("--label-ids", label_ids is not None),
        ("--column", bool(request.columns)),
        (f"--missing {request.options.missing}", request.options.missing in ("skip", "list")),
        ("--feature-frame keep", request.options.feature_frame == "keep"),
    ):
        if there:
            raise UsageError(
                f"{option} has no effect without --annotations.", option=option.split()[0]
            )


def _label_ids(path: Path) -> dict[str, int]:
    return {name: number for number, name in enumerate(read_label_mapping(path))}


def load_target(name: str) -> Target:
    """The target of a name in :data:`~tspcli.exports.targets.TARGETS`.

    Raises:
        UsageError: If there is none.
    """
    if name not in TARGETS:
        raise UsageError(
            f"There is no target {name!r}; the targets are {', '.join(TARGETS)}.",
            option="--to",
            value=name,
        )
    entry = TARGETS[name]
    target: Target = getattr(import_module(entry.module), entry.type_name)(name)
    return target


def _with_own_files(usage: Usage) -> Usage:
    """Explain the placeholder for files that were not written, where it occurs."""
    places = ["the lines above"] if str(OWN_FILES) in usage.text else []
    places += [name for name, text in usage.files.items() if str(OWN_FILES) in text]
    if not places:
        return usage
    note = f"{OWN_FILES} in {' and '.join(places)}: files of your own, not written here."
    return replace(usage, text=f"{usage.text}\n{note}")


def _list_missing(plan: ExportPlan, folder: Path) -> None:
    path = folder / "missing_files.txt"
    if not path.exists():
        path.write_text("".join(f"{name}\n" for name in plan.missing), encoding="utf-8")


def _usage_page(report: ExportReport) -> str:
    n_videos = counted(report.n_videos, "video")
    lines = [f"{n_videos} for {report.target}, written by tspcli {__version__}.", ""]
    lines += [report.usage, ""]
    for clock, error in report.time_errors.items():
        lines.append(f"Time ({clock}): {error.line()}.")
    lines += [""] * bool(report.notes) + [f"Note: {note}" for note in report.notes]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Staging:
    """Where an export is built.

    Attributes:
        main: The future output: a folder that exists, or the path of a file to write.
        companions: The folder for annotations, snippets and the manifest. For a folder output it
            is that folder.
        n_cleared: The number of unfinished exports to the same place that were removed.
    """

    main: Path
    companions: Path
    n_cleared: int = 0


def check_free(out: Path, *, is_file: bool, overwrite: bool) -> None:
    """Raise if the output may not be written.

    Raises:
        ExportError: If something is there that may not be replaced.
    """
    for path in (out, companions_of(out)) if is_file else (out,):
        if not path.exists() and not path.is_symlink():
            continue
        is_main_file = is_file and path == out
        if path.is_dir() == is_main_file:
            what = "folder" if path.is_dir() else "file"
            raise ExportError(f"{path} is a {what}.", option="--out", path=path)
        if path.is_dir() and not any(path.iterdir()):
            continue
        if not overwrite:
            raise ExportError(
                f"{path} exists already.",
                remedy="Use --overwrite to replace it.",
                option="--out",
                path=path,
            )
        if path.is_dir() and not (path / MANIFEST).is_file():
            raise ExportError(
                f"{path} is not an export, so it is not replaced.",
                remedy="Give another --out, or remove that folder yourself.",
                option="--out",
                path=path,
            )


@contextmanager
def staged(out: Path, *, is_file: bool, overwrite: bool) -> Iterator[Staging]:
    """Build an export beside its place; rename it on success, leave nothing behind on failure.

    Args:
        out: The folder or file to write.
        is_file: Whether the output is one file with its companions in a folder beside it.
        overwrite: Replace an earlier export.

    Raises:
        ExportError: If the output is there already, or the disk is full or not writable.
        StoreLockedError: If another process exports to the same place.
    """
    with one_writer(out):
        check_free(out, is_file=is_file, overwrite=overwrite)
        # The lock is held, so nobody else is writing there.
        n_cleared = remove_leftovers(out)
        # A file comes last: whoever sees it finds its companions.
        places = [companions_of(out), out] if is_file else [out]
        with replacing_together(*places, error=ExportError) as new:
            new[0].mkdir()
            yield Staging(new[-1], new[0], n_cleared)
