"""``tsp gvf``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tspcli.cli.console import print_json, say
from tspcli.cli.displays import stopping_extraction, summarize, watch
from tspcli.cli.main import EXIT_SOME_FAILED
from tspcli.cli.options import (
    PATH,
    decoding_options,
    encoder_options,
    engine_options,
    json_option,
    stride_option,
    videos_option,
    weights_options,
)
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.text import counted


@click.command(
    "gvf",
    cls=RuledCommand,
    one_of=["videos", "features"],
    short_help="Compute global video features for pretraining.",
)
@videos_option()
@ruled_option(
    "--features",
    type=PATH,
    multiple=True,
    alone_with=["out", "pool", "overwrite", "as_json"],
    help="Pool a feature store instead of decoding videos.",
)
@click.option("--out", "-o", required=True, type=PATH, help="The HDF5 file.")
@click.option(
    "--pool",
    type=click.Choice(["max", "mean"]),
    default="max",
    show_default=True,
    help="How the clips of a video are pooled.",
)
@weights_options("r2plus1d_34-tac_on_kinetics")
@stride_option
@encoder_options
@decoding_options
@engine_options
@click.option("--overwrite", is_flag=True, help="Replace the file instead of adding to it.")
@json_option()
def command(
    videos: tuple[str, ...],
    features: tuple[Path, ...],
    out: Path,
    pool: Any,
    as_json: bool,
    **options: Any,
) -> int:
    """Compute global video features: one vector per video, the maximum or mean over its clips.

    TSP's region head sees it together with each clip's own feature. It is fixed during pretraining,
    so it is computed once, with an encoder trained on Kinetics. Clips are those that the weights
    were made for; those of the default weights are the official ones.

    \b
    Examples:
      tsp gvf --videos videos/ --weights r2plus1d_34-tac_on_kinetics --out gvf.h5
      tsp gvf --features kinetics_features.h5 --pool mean --out avg_gvf.h5
    """
    from tspcli.errors import UsageError

    if len(features) > 1:
        raise UsageError(
            f"--features is given {len(features)} times, for one store.",
            remedy="`tsp merge` makes one store of several.",
        )
    if features:
        from tspcli.store.gvf import gvf_from_store

        made = gvf_from_store(features[0], out, pool=pool, overwrite=options["overwrite"])
        if as_json:
            print_json({"out": str(out), "videos": len(made), "dim": made.dim, "pool": pool})
        else:
            say(f"{out}: {counted(len(made), 'video')}, {made.dim} values each ({pool}).")
        return 0

    from tspcli.extraction.extract_config import ExtractConfig
    from tspcli.extraction.extraction_run import GVF_WEIGHTS, compute_gvf

    config = ExtractConfig(**{**options, "weights": options["weights"] or GVF_WEIGHTS})
    with stopping_extraction(out) as stop:
        try:
            with watch(stop_requested=stop.requested) as reporter:
                report = compute_gvf(videos, out, pool=pool, config=config, reporter=reporter)
        except KeyboardInterrupt:
            return stop.farewell()
    if as_json:
        print_json(report.to_dict())
    summarize(report, of=pool)
    return EXIT_SOME_FAILED if report.failed else 0
