"""The command of ``make reproduce``: ``python -m reproduction``."""

from __future__ import annotations

from pathlib import Path

import click

from tspcli.cli.console import print_json, say
from tspcli.cli.displays import watch
from tspcli.cli.options import PATH, POSITIVE, IntList, json_option


@click.command("reproduction")
@click.option(
    "--scale",
    type=click.Choice(["tiny", "curve", "explore", "small", "full"]),
    default="tiny",
    show_default=True,
    help="tiny: one cell on two cores; curve: the whole plan on two cores, hours; explore: the "
    "plan and exploratory variations; small: one GPU; full: ActivityNet v1.3 and THUMOS14, which "
    "you have. All but full render their videos.",
)
@click.option(
    "--out",
    "-o",
    type=PATH,
    default=Path("reproduction"),
    show_default=True,
    help="The experiment's folder.",
)
@click.option("--seeds", type=IntList(), help="Such as 10,11,12.  [default: the scale's own]")
@click.option("--data", type=PATH, help="Folder of the real data sets, for full.")
@click.option(
    "--skip-missing-videos",
    is_flag=True,
    help="For full: leave out missing videos.",
)
@click.option("--gpus", type=POSITIVE, help="For full: processes of a training.  [default: 1]")
@json_option("the outcome")
def command(
    scale: str,
    out: Path,
    seeds: tuple[int, ...] | None,
    data: Path | None,
    skip_missing_videos: bool,
    gpus: int | None,
    as_json: bool,
) -> int:
    """Repeat the paper's experiment: do features of TSP localize better than those of TAC?

    Renders untrimmed videos, pretrains encoders on them in every way that the paper compares,
    trains a localizer on the features of each, and writes a page with all figures. A run that was
    stopped resumes when the same command is given again; a finished one does nothing.

    \b
    Examples:
      python -m reproduction --scale tiny --out repro/ --seeds 10,11
      python -m reproduction --scale full --data datasets/ --out repro_full/
    """
    from dataclasses import replace

    from reproduction.full import FULL
    from reproduction.run import reproduce
    from tspcli.errors import UsageError

    if scale != FULL.name and (data is not None or skip_missing_videos or gpus is not None):
        raise UsageError(
            "--data, --skip-missing-videos and --gpus belong to the scale full.",
            remedy="Leave them out; the other scales render their videos.",
        )
    with watch() as reporter:
        report = reproduce(
            replace(FULL, gpus=gpus or FULL.gpus) if scale == FULL.name else scale,
            out,
            seeds=seeds,
            data=data,
            skip_missing=skip_missing_videos,
            reporter=reporter,
        )
    if as_json:
        print_json(report.to_dict())
    for line in (*report.verdicts, report.page, report.table):
        say(str(line))
    return 0


if __name__ == "__main__":
    from tspcli.cli.main import main

    main(command=command)
