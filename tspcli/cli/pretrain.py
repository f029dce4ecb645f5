"""``tsp pretrain``."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tspcli.cli.console import print_json, say
from tspcli.cli.displays import watch
from tspcli.cli.main import EXIT_SOME_FAILED
from tspcli.cli.options import (
    PATH,
    POSITIVE,
    VIDEO_PATH,
    default_text,
    json_option,
    setting_options,
)
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.settings import Setting
from tspcli.pretraining.training_recipe import (
    DEFAULT_RECIPE,
    Execution,
    Recipe,
    load_recipe,
)

if TYPE_CHECKING:
    from tspcli.pretraining.training_log import PretrainReport

_OFFICIAL = load_recipe(DEFAULT_RECIPE)


def _recipe_text(setting: Setting) -> str:
    text = f"[what] {setting.description}"
    value = getattr(_OFFICIAL, setting.name)
    if value in ("", ()):
        return text
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{text} ({_OFFICIAL.name}: {shown})"


def _execution_text(setting: Setting) -> str:
    return f"[how] {default_text(setting)}"


@click.command(
    "pretrain", cls=RuledCommand, short_help="Train an encoder on untrimmed videos (TSP or TAC)."
)
@ruled_option(
    "--videos",
    "-v",
    multiple=True,
    takes_all=True,
    type=VIDEO_PATH,
    help="Folders of the videos, searched with their subfolders; several, or repeated.",
)
@click.option("--train", type=PATH, help="Ground-truth table of training (`tsp annotations`).")
@click.option("--valid", type=PATH, help="Ground-truth table of validation.")
@click.option("--labels", type=PATH, help="Label mapping.  [default: the sorted classes]")
@click.option("--gvf", type=PATH, help="Global video features (`tsp gvf`).")
@click.option("--out", "-o", type=PATH, help="The run's folder.")
@click.option(
    "--recipe",
    default=DEFAULT_RECIPE,
    show_default=True,
    help="A recipe's name or a TOML file; --list-recipes shows them.",
)
@click.option("--config", type=PATH, help="TOML file of settings that override the recipe's.")
@click.option("--resume", is_flag=True, help="Resume the run in --out.")
@click.option("--overwrite", is_flag=True, help="Delete the run in --out and start a new one.")
@click.option("--gpus", type=POSITIVE, help="Processes on this machine, one per device.")
@click.option("--cache-only", is_flag=True, help="Fill the clip cache (--cache) and stop.")
@click.option("--list-recipes", is_flag=True, help="Show the recipes and stop.")
@json_option()
@setting_options(Recipe, [field.name for field in fields(Recipe)][1:], text=_recipe_text)
@setting_options(Execution, text=_execution_text)
def command(
    videos: tuple[Path, ...],
    train: Path | None,
    valid: Path | None,
    labels: Path | None,
    gvf: Path | None,
    out: Path | None,
    recipe: str,
    config: Path | None,
    resume: bool,
    overwrite: bool,
    gpus: int | None,
    cache_only: bool,
    list_recipes: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Train an encoder on untrimmed videos with the recipe of TSP or TAC.

    Options marked [what] override the recipe's values; those marked [how] decide how this machine
    computes it. The best epoch's weights are RUN/best.pth; `tsp extract --weights RUN` uses them.
    --resume resumes a run that was killed and ends with the same weights.

    \b
    Examples:
      tsp pretrain --videos videos/ --train train.csv --valid valid.csv --gvf gvf.h5 --out run/
      tsp pretrain --recipe tac-thumos14 --videos v/ --train t.csv --valid v.csv --out run/ --gpus 2
      torchrun --nproc-per-node 8 -m tspcli pretrain --videos v/ --train t.csv … --out run/
    """
    from tspcli.errors import UsageError
    from tspcli.recipes.catalog import recipe_names, recipe_summary

    if list_recipes:
        for name in recipe_names("training"):
            click.echo(f"{name:18} {recipe_summary('training', name)}")
        return 0
    missing = [
        f"--{name}"
        for name, value in (("videos", videos), ("train", train), ("valid", valid), ("out", out))
        if not value
    ]
    if missing:
        raise UsageError(f"Missing {', '.join(missing)}.", remedy="See `tsp pretrain --help`.")
    assert train is not None and valid is not None and out is not None
    what, how = split_settings(config, settings)
    chosen = load_recipe(recipe, what)
    if gpus is not None and gpus > 1 and "RANK" not in os.environ:
        return _launch(gpus)
    from tspcli.core.settings import with_values
    from tspcli.core.stop import stoppable
    from tspcli.pretraining.precheck import fill_cache_only
    from tspcli.pretraining.training_run import pretrain

    execution = with_values(Execution(), how, "the options")
    if cache_only:
        with watch() as reporter:
            filled = fill_cache_only(
                videos, train, valid, chosen, execution, labels=labels, reporter=reporter
            )
        return EXIT_SOME_FAILED if filled.failed else 0
    is_first = int(os.environ.get("RANK", 0)) == 0
    launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
    with stoppable(
        say,
        # Its processes would otherwise train on without it.
        asked_by=lambda: launcher not in (None, os.getppid()),
        # Storing where a run stands may take longer.
        hard_limit=False,
        is_launched=launcher is not None,
    ) as stop:
        try:
            with watch(stop_requested=stop.requested) as reporter:
                report = pretrain(
                    videos,
                    train,
                    valid,
                    out,
                    recipe=chosen,
                    execution=execution,
                    labels=labels,
                    gvf=gvf,
                    resume=resume,
                    overwrite=overwrite,
                    reporter=reporter,
                )
        except KeyboardInterrupt:
            return stop.farewell()
    if is_first:
        _summarize(report, as_json)
    return stop.exit_code if report.stopped else 0


def split_settings(
    config: Path | None, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the recipe and of the execution: those of the TOML file, under the options'."""
    import difflib

    from tspcli.core.settings import parse_toml, read_toml_text
    from tspcli.errors import UsageError

    merged: dict[str, Any] = {}
    if config is not None:
        if not config.is_file():
            raise UsageError(f"There is no file {config}.", option="--config")
        content = parse_toml(read_toml_text(config), str(config))
        content.pop("tool_version", None)
        execution = content.pop("execution", {})
        if not isinstance(execution, dict):
            raise UsageError(
                f"{config}: execution is {execution!r}.", remedy="It is a table: [execution]."
            )
        merged = {**content, **execution}
        # Later nobody knows which settings the file gave.
        known = {item.name for item in (*fields(Recipe), *fields(Execution))}
        for name in merged:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UsageError(
                    f"{config} has no setting {name!r}.",
                    remedy=f"Did you mean {near[0]!r}?" if near else None,
                    option=name,
                    path=config,
                )
    merged.update({name: value for name, value in options.items() if value is not None})
    of_execution = {item.name for item in fields(Execution)}
    how = {name: value for name, value in merged.items() if name in of_execution}
    what = {name: value for name, value in merged.items() if name not in of_execution}
    return what, how


def _launch(processes: int) -> int:
    """Run this very command in several processes; its exit code."""
    from tspcli.pretraining.distributed import launch

    arguments = list(sys.argv[1:])
    if "--gpus" in arguments:
        place = arguments.index("--gpus")
        del arguments[place : place + 2]
    arguments = [argument for argument in arguments if not argument.startswith("--gpus=")]
    return launch(processes, arguments)


def _summarize(report: PretrainReport, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json(asdict(report))
    if report.stopped:
        text = f"Stopped; the same command with --resume resumes here: {report.out}"
    elif report.epochs:
        text = (
            f"{report.out}: best epoch {report.best_epoch}, mean accuracy of the heads "
            f"{100 * report.best_score:.2f} %. Use it: tsp extract --weights {report.out} …"
        )
    else:
        text = f"{report.out}: nothing to do."
    say(text)
