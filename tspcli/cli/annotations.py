"""``tsp annotations``: convert annotations, and check the tables that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tspcli.annotations.dialects import DIALECTS, GapRule
from tspcli.cli.options import (
    PATH,
    NonNegativeFloat,
    TableChoice,
    column_option,
    json_option,
    split_name,
)
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.text import counted

if TYPE_CHECKING:
    from tspcli.annotations import Annotations
    from tspcli.annotations.check import CheckReport
    from tspcli.annotations.convert import ConversionReport


@click.group(name="annotations")
def command() -> None:
    """Convert annotations into the tables of `tsp pretrain`, and check them.

    \b
    Example:
      tsp annotations convert activity_net.v1-3.min.json --videos videos/ --out tables/
      tsp annotations check --train t/train_groundtruth.csv --valid t/valid_groundtruth.csv
    """


@command.command(cls=RuledCommand)
@click.argument("annotations", type=PATH)
@click.option(
    "--videos",
    multiple=True,
    type=PATH,
    help="Folder whose videos are probed for duration, rate and frame count; give it once per "
    "split, as NAME=DIR where the annotations give no split.",
)
@click.option(
    "--metadata",
    multiple=True,
    type=PATH,
    help="Table of filename,video-duration,fps,video-frames in place of --videos; likewise FILE "
    "or NAME=FILE.",
)
@ruled_option(
    "--to",
    metavar="DIALECT",
    alone_with=["annotations", "out", "dialect", "columns", "overwrite"],
    help="Write the same segments in another dialect instead of tables for `tsp pretrain`: "
    f"{', '.join(name for name, dialect in DIALECTS.items() if dialect.writer)}.",
)
@click.option("--out", required=True, type=PATH, help="Folder for the tables; file for --to.")
@click.option(
    "--dialect", type=TableChoice(DIALECTS), help="Dialect of the annotations.  [default: detected]"
)
@column_option()
@click.option(
    "--min-gap",
    type=NonNegativeFloat(),
    help="Shortest gap between actions, in seconds, that becomes a background row.  [default: the "
    "dialect's: 16/3 for ActivityNet, 16/15 for others]",
)
@click.option(
    "--background",
    type=click.Choice(get_args(GapRule)),
    help="Gaps of the union of all actions, or the rule of the released ActivityNet tables, which "
    "takes the rest of a long action behind a short one inside it for background.  [default: the "
    "dialect's: official for ActivityNet, union for others]",
)
@click.option("--labels", type=PATH, help="Existing label mapping (JSON list) to keep ids.")
@click.option("--overwrite", is_flag=True, help="Replace other tables that --out holds.")
@click.option(
    "--include-unannotated",
    is_flag=True,
    help="Take videos without any action as background from end to end.",
)
@json_option()
def convert(
    annotations: Path, dialect: str | None, columns: dict[str, str], **options: Any
) -> None:
    """Convert annotations of any dialect into tables for `tsp pretrain` or another dialect.

    Dialects of one file per video (ELAN, SubRip, WebVTT) take and give a folder of them.

    \b
    Examples:
      tsp annotations convert activity_net.v1-3.min.json --videos videos/ --out tables/
      tsp annotations convert annotation/ --videos videos/ --out tables/        # THUMOS14
      tsp annotations convert actions.csv --videos train=a/ --videos valid=b/ --out tables/
      tsp annotations convert elan_files/ --to activitynet --out actions.json
    """
    from tspcli.annotations import read_actions
    from tspcli.annotations.write import write_as
    from tspcli.cli.console import say

    found = read_actions(annotations, dialect=dialect, columns=columns)
    if options["to"] is None:
        _convert(found, options)
        return
    write_as(found, options["to"], options["out"], overwrite=options["overwrite"])
    n_segments = sum(len(video.segments) for video in found.values())
    counts = f"{counted(n_segments, 'segment')} of {counted(len(found), 'video')}"
    say(f"Wrote {counts} to {options['out']}")
    for reason, count in found.skipped.items():
        say(f"{counted(count, 'row')} skipped: {reason}")


def _add_former_name(name: str, dialect: str | None) -> None:
    """Keep a former command as a hidden name of `convert` for one dialect."""

    def callback(**options: Any) -> None:
        convert_with = convert.callback
        assert convert_with is not None
        convert_with(**{**options, "dialect": options["dialect"] or dialect})

    command.add_command(
        click.Command(
            name, params=convert.params, callback=callback, help=convert.help, hidden=True
        )
    )


_add_former_name("activitynet", None)
_add_former_name("thumos14", "thumos14")
_add_former_name("csv", "table")


def _named_path(value: Path) -> tuple[str, Path]:
    """``NAME=PATH``, or a path whose own name gives the split."""
    if not value.exists() and "=" in str(value):
        name, rest = split_name(str(value), "--videos/--metadata")
        return name, Path(rest)
    words = value.stem.lower()
    for part, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        if part in words:
            return name, value
    return "all", value


def _convert(annotations: Annotations, options: dict[str, Any]) -> None:
    from dataclasses import asdict

    from tspcli.annotations import VideoEntry, read_label_mapping, read_metadata
    from tspcli.annotations.convert import convert as convert_annotations
    from tspcli.annotations.convert import require_folder
    from tspcli.annotations.training_tables import probe_folder
    from tspcli.cli.console import err_console, print_json
    from tspcli.errors import UsageError

    require_folder(options["out"])
    if not options["videos"] and not options["metadata"]:
        raise UsageError(
            "The durations of the videos are needed.",
            remedy="Give --videos DIR or --metadata FILE.",
            option="--videos",
        )
    console = err_console()
    videos: dict[str, list[VideoEntry]] = {}
    for name, path in map(_named_path, options["metadata"]):
        videos.setdefault(name, []).extend(read_metadata(path))
    failed: dict[str, str] = {}
    for name, path in map(_named_path, options["videos"]):
        with console.status(f"Probing {path}") as status:
            probed = probe_folder(
                path, on_video=lambda video, done, of: status.update(f"Probing {done}/{of} {video}")
            )
        videos.setdefault(name, []).extend(probed.videos)
        failed.update(probed.failed)
    labels = read_label_mapping(options["labels"]) if options["labels"] else None
    report = convert_annotations(
        annotations,
        videos,
        options["out"],
        min_gap_s=options["min_gap"],
        gap_rule=options["background"],
        labels=labels,
        include_unannotated=options["include_unannotated"],
        overwrite=options["overwrite"],
        inputs=[path for _, path in map(_named_path, options["metadata"])],
    )
    if options["as_json"]:
        print_json({**_plain(asdict(report)), "unreadable": failed})
    else:
        _show_conversion(report, failed)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _some(names: list[str], limit: int = 3) -> str:
    shown = ", ".join(names[:limit])
    return f"{len(names)} ({shown}{', …' if len(names) > limit else ''})"


def _show_conversion(report: ConversionReport, failed: dict[str, str]) -> None:
    from functools import partial

    from tspcli.cli import console

    say = partial(console.say, console=console.out_console())

    for name, part in report.subsets.items():
        say(
            f"{name}: {counted(part.n_videos, 'video')}, {counted(part.n_actions, 'action')}, "
            f"{counted(part.n_background, 'background row')} -> {part.groundtruth}"
        )
        if part.missing:
            say(f"  annotated, but of unknown duration: {_some(part.missing)}")
        if part.unannotated:
            say(f"  without any action, so without a row: {_some(part.unannotated)}")
        for count, where, what in (
            (part.n_beyond, "beyond", "cuts"),
            (part.n_outside, "completely outside", "drops"),
        ):
            if count:
                say(
                    f"  {where} their video, where training {what} them: "
                    f"{counted(count, 'action')} (`tsp annotations check` names them)"
                )
        if part.nested:
            say(
                f"  nested actions, where --background union and official differ (used: "
                f"{report.gap_rule}): {_some(part.nested)}"
            )
    if report.missing:
        say(f"annotated, but of unknown duration: {_some(report.missing)}")
    if report.unlisted:
        say(f"videos without any action, whose split has no table: {_some(report.unlisted)}")
    for reason, count in report.skipped.items():
        say(f"left out of the source: {counted(count, 'row')} ({reason})")
    for file, reason in failed.items():
        say(f"cannot be read: {file}: {reason}")
    say(
        f"background: gaps of at least {report.min_gap_s:.4g} s between actions: --min-gap "
        f"{report.min_gap_s:.4g} --background {report.gap_rule}; the defaults depend on the "
        f"dialect, here {report.dialect}"
    )
    if list(report.subsets) == ["all"]:
        say(
            "no split is given, so there is one table, and `tsp pretrain` needs two: give --videos "
            "(or --metadata) once per split, as train=DIR and valid=DIR, or a column `subset`"
        )
    say(f"{counted(report.n_classes, 'class', 'classes')} -> {report.labels}")


@command.command()
@click.option("--train", type=PATH, help="Ground-truth table of training.")
@click.option("--valid", type=PATH, help="Ground-truth table of validation.")
@click.option("--labels", type=PATH, help="Label mapping (JSON list of class names).")
@click.option(
    "--videos",
    multiple=True,
    type=PATH,
    help="Folder of the videos, or train=DIR and valid=DIR; its files are probed.",
)
@click.option(
    "--metadata",
    multiple=True,
    type=PATH,
    help="Metadata table in place of --videos, likewise train=FILE and valid=FILE.",
)
@click.option(
    "--clip-seconds",
    type=NonNegativeFloat(),
    default=16 / 15,
    show_default="16/15",
    help="Duration of a clip; shorter segments are dropped.",
)
@json_option("the findings")
def check(
    train: Path | None,
    valid: Path | None,
    labels: Path | None,
    videos: tuple[Path, ...],
    metadata: tuple[Path, ...],
    clip_seconds: float,
    as_json: bool,
) -> int:
    """Find what ruins a training, and report the chance level of both heads.

    Exits with 1 if anything is found that makes training wrong.

    \b
    Example:
      tsp annotations check --train train_groundtruth.csv --valid valid_groundtruth.csv --videos v/
    """
    from dataclasses import asdict

    from tspcli.annotations import read_groundtruth, read_label_mapping
    from tspcli.annotations.check import check_groundtruth
    from tspcli.cli.console import err_console, print_json
    from tspcli.errors import UsageError

    paths = {name: path for name, path in (("train", train), ("valid", valid)) if path is not None}
    if not paths:
        raise UsageError("There is no table to check.", remedy="Give --train, --valid or both.")
    tables = {name: read_groundtruth(path) for name, path in paths.items()}
    with err_console().status("Looking at the videos"):
        files = _files_at_hand(videos, metadata, list(tables)) if videos or metadata else None
    report = check_groundtruth(
        tables,
        labels=read_label_mapping(labels) if labels else None,
        videos=files,
        min_segment_s=clip_seconds,
    )
    if as_json:
        print_json(_plain(asdict(report)) | {"ok": report.ok})
    else:
        _show_check(report)
    return 0 if report.ok else 1


def _files_at_hand(
    videos: tuple[Path, ...], metadata: tuple[Path, ...], subsets: list[str]
) -> dict[str, dict[str, float | None]]:
    from tspcli.annotations import read_metadata
    from tspcli.annotations.training_tables import probe_folder
    from tspcli.errors import UsageError

    found: dict[str, dict[str, float | None]] = {}
    for paths, probing in ((metadata, False), (videos, True)):
        for value in paths:
            named = not value.exists() and "=" in str(value)
            name, path = split_name(str(value), "--videos") if named else ("", str(value))
            if named and name not in subsets:
                raise UsageError(
                    f"{value}: there is no table {name!r} to compare with.",
                    remedy=f"Name {' or '.join(subsets)}, or none for all tables.",
                )
            files: dict[str, float | None] = {}
            if probing:
                probed = probe_folder(path)
                files.update({video.filename: video.duration_s for video in probed.videos})
                files.update(dict.fromkeys(probed.failed))
            else:
                files.update({v.filename: v.duration_s for v in read_metadata(path)})
            for subset in [name] if named else subsets:
                found.setdefault(subset, {}).update(files)
    return found


def _show_check(report: CheckReport) -> None:
    from tspcli.cli.console import out_console, say

    console = out_console()
    styles = {"error": "red", "warning": "yellow", "note": "dim"}
    for finding in report.findings:
        text = f"{finding.severity}: {finding.subset}: {finding.message} [{finding.kind}]"
        say(text, styles[finding.severity], console=console)
        for example in finding.examples:
            say(f"    {example}", console=console)
    for subset, levels in report.chance.items():
        counts = ", ".join(f"{n} {region}" for region, n in report.n_segments[subset].items())
        say(f"{subset}: segments kept: {counts}", console=console)
        for level in levels:
            say(
                f"{subset}: chance level of the {level.head} head: {100 * level.majority:.2f} % "
                f"(always the most frequent class), {100 * level.uniform:.2f} % (guessing) "
                f"over {counted(level.n_clips, 'clip')}",
                console=console,
            )
    if not report.findings:
        say("Nothing found.", console=console)
