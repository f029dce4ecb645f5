"""``tsp extract``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tspcli.cli.console import print_json
from tspcli.cli.displays import stopping_extraction, summarize, watch
from tspcli.cli.main import EXIT_SOME_FAILED
from tspcli.cli.options import (
    PATH,
    Shard,
    clip_options,
    decoding_options,
    encoder_options,
    engine_options,
    json_option,
    videos_option,
    weights_options,
)
from tspcli.cli.rules import Named, RuledCommand, require_apart


@click.command(
    "extract", cls=RuledCommand, short_help="Compute clip features of videos into a store."
)
@videos_option(required=True)
@click.option("--out", "-o", required=True, type=PATH, help="The HDF5 store.")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="Make features as published ones were made, see `tsp recipes list`; options that differ "
    "are recorded.",
)
@weights_options("TSP on ActivityNet")
@clip_options
@encoder_options
@decoding_options
@click.option(
    "--short-videos",
    type=click.Choice(["pad", "skip", "fail"]),
    default="pad",
    show_default=True,
    help="A video shorter than one clip: repeat its last frame, skip it, or fail it.",
)
@click.option(
    "--key",
    "key_template",
    default="{stem}",
    show_default=True,
    metavar="TEMPLATE",
    help="Name of a video in the store; also {parent} and {name}.",
)
@click.option("--overwrite", is_flag=True, help="Replace the store instead of adding to it.")
@click.option("--strict", is_flag=True, help="Fail videos that are damaged in part.")
@click.option("--shard", type=Shard(), help="Process only the I-th of N shares of the videos.")
@engine_options
@click.option(
    "--decode-timeout",
    "decode_timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds without a frame after which a decoder counts as hung; inf for no limit.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a trace of the run to this JSON file, for chrome://tracing or Perfetto.",
)
@json_option()
def command(as_json: bool, **options: Any) -> int:
    """Compute clip features of untrimmed videos into one HDF5 store.

    The defaults reproduce the features released with TSP. The same command resumes a run that was
    stopped in any way. Exit code 3: finished, but some videos failed.

    \b
    Examples:
      tsp extract --videos my_videos/ --out feats.h5
      tsp extract --videos list.txt --out dense.h5 --stride 1
      tsp extract --videos my_videos/ --out feats.h5 --frame-rate native --stride 4
      tsp extract --videos my_videos/ --out feats.h5 --weights i3d-kinetics400
      tsp extract --videos my_videos/ --out feats.h5 --gpus all
      tsp extract --videos my_videos/ --out feats.h5 --shard 1/4
      tsp extract --videos /shared/videos/ --out /shared/feats.h5 --engine ray
    """
    from tspcli.core.run_dir import report_path
    from tspcli.extraction import ExtractConfig, extract
    from tspcli.extraction.shard_plan import shard_path

    videos, out = options.pop("videos"), options.pop("out")
    if options["weights"] is None:
        del options["weights"]
    config = ExtractConfig.of_recipe(**options)
    place = out if config.shard is None else shard_path(out, config.shard)
    outputs: Named = [("--out", place), ("the report next to --out", report_path(place))]
    outputs += [("--profile", config.profile)]
    outputs += [("the store of all shards", out)] if place != out else []
    require_apart(outputs, [("--videos", path) for path in videos])
    with stopping_extraction(out) as stop:
        try:
            with watch(stop_requested=stop.requested) as reporter:
                report = extract(videos, out, config=config, reporter=reporter)
        except KeyboardInterrupt:
            return stop.farewell()
    if as_json:
        print_json(report.to_dict())
    summarize(report)
    return EXIT_SOME_FAILED if report.failed else 0
