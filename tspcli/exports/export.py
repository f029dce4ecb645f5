"""An output that is either whole or not there: built beside its place, then renamed into it.

From a request to an export: what was planned is written, one video at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.annotations import read_together
from tspcli.annotations.segments import read_label_mapping
from tspcli.core.files import remove_leftovers, replacing_together
from tspcli.core.run_dir import one_writer
from tspcli.core.text import counted
from tspcli.core.version import __version__
from tspcli.errors import ExportError, UsageError
from tspcli.exports.export_options import ExportRequest
from tspcli.exports.export_plan import TimeError, worst_errors
from tspcli.exports.naming import check_rule, companions_of
from tspcli.exports.planner import make_plan, read_rows
from tspcli.exports.target import OWN_FILES, ExportPlan, PlannedVideo, Target, Usage
from tspcli.exports.targets import TARGETS
from tspcli.exports.targets.actionformer import ActionFormer
from tspcli.sampling import Sampling
from tspcli.store.store_set import Sources

MANIFEST = "export.json"
"""Written into every export; a folder with it may be replaced, others never."""


@dataclass(frozen=True)
class Staging:
    """Where an export is built.

    Attributes:
        main: The future output: a folder that exists, or the path of a file to write.
        companions: The folder for annotations, snippets and the manifest. For a folder output it
            is that folder.
        n_cleared: How many unfinished exports to the same place were found and removed.
    """

    main: Path
    companions: Path
    n_cleared: int = 0


def check_free(out: Path, *, is_file: bool, overwrite: bool) -> None:
    """Raise unless the output may be written.

    Raises:
        ExportError: If something is there and may not be replaced.
    """
    for path in (out, companions_of(out)) if is_file else (out,):
        if not path.exists() and not path.is_symlink():
            continue
        is_main_file = is_file and path == out
        if path.is_dir() == is_main_file:
            what = "folder" if path.is_dir() else "file"
            raise ExportError(f"{path} is a {what}.", remedy="Give another --out.")
        if path.is_dir() and not any(path.iterdir()):
            continue
        if not overwrite:
            raise ExportError(
                f"{path} exists already.", remedy="Give another --out, or --overwrite."
            )
        if path.is_dir() and not (path / MANIFEST).is_file():
            raise ExportError(
                f"{path} holds other things than an export, so it is not replaced.",
                remedy="Give another --out, or remove that folder yourself.",
            )


@contextmanager
def staged(out: Path, *, is_file: bool, overwrite: bool) -> Iterator[Staging]:
    """Build an export aside; rename it into place on success, leave nothing behind on failure.

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


USAGE = "HOW_TO_USE.txt"


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
        check_free(out, is_file=target.is_file(plan.options, out), overwrite=plan.options.overwrite)
        return _write(target, plan, sources, on_video)


def _write(
    target: Target,
    plan: ExportPlan,
    sources: Sources,
    on_video: Callable[[int, int], None] | None,
) -> ExportReport:
    options = plan.options
    is_file = target.is_file(options, plan.out)
    with staged(plan.out, is_file=is_file, overwrite=plan.options.overwrite) as staging:
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
            plan.data_set,
            n_videos=len(plan.videos),
            n_rows=sum(video.n_rows for video in plan.videos),
            width=plan.width,
            missing=plan.missing,
            unannotated=plan.n_unannotated,
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
        (f"--missing {request.options.missing}", request.options.missing in ("skip", "list")),
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


def _usage_page(report: ExportReport) -> str:
    lines = [f"{report.n_videos} videos for {report.target}, written by tspcli {__version__}.", ""]
    lines += [report.usage, ""]
    for clock, error in report.time_errors.items():
        lines.append(f"Time ({clock}): {error.told()}.")
    lines += [""] * bool(report.notes) + [f"Note: {note}" for note in report.notes]
    return "\n".join(lines) + "\n"
