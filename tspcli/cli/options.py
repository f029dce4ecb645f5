"""Options that several commands share, so that name, default and help stand once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tspcli.cli.inputs import POSITIVE, VIDEO_PATH, NumberOr

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]

# Told here so that a help page needs neither decoders nor torch; a test holds them against those.
DECODER_NAMES = ("auto", "pyav", "decord", "torchcodec", "torchcodec-cuda")
PRECISION_NAMES = ("auto", "fp32", "tf32", "bf16", "fp16")
RUNTIME_NAMES = ("torch", "compiled", "openvino")


def together(*options: Option) -> Callable[[Command], Command]:
    """Several options as one decorator; the help page shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def videos_option(*, required: bool = False, text: str = "") -> Option:
    """``--videos``: what to decode."""
    return click.option(
        "--videos",
        "-v",
        multiple=True,
        required=required,
        type=VIDEO_PATH,
        metavar="DIR|FILE|LIST.txt",
        help=text
        or "A video, a folder (searched for video endings) or a .txt list; may be repeated.",
    )


def device_option(*, several: bool = False) -> Option:
    """``--device``: where to compute."""
    more = "; several, with commas, at once" if several else ""
    return click.option(
        "--device", default="auto", show_default=True, help=f"auto, cpu, cuda, cuda:1 …{more}."
    )


def weights_options(default: str) -> Callable[[Command], Command]:
    """``--weights``, ``--backbone`` and ``--seed``: which encoder.

    Args:
        default: What is used without, in words.
    """
    return together(
        click.option(
            "--weights",
            "-w",
            help=f"Registry name, checkpoint or run folder.  [default: {default}]",
        ),
        click.option("--backbone", help="The backbone, where the weights do not tell."),
        click.option("--seed", type=int, help="For --weights random."),
    )


encoder_options = together(
    click.option(
        "--batch-size",
        type=NumberOr("auto", None),
        default="auto",
        show_default=True,
        help="Clips at once.",
    ),
    device_option(several=True),
    click.option("--gpus", type=NumberOr("all", "all"), help="So many GPUs at once, or all."),
    click.option(
        "--precision",
        type=click.Choice(PRECISION_NAMES),
        default="auto",
        show_default=True,
        help="fp32 rounds nothing; auto is fp16 on CUDA, fp32 on a CPU.",
    ),
    click.option(
        "--runtime",
        type=click.Choice(RUNTIME_NAMES),
        default="torch",
        show_default=True,
        help="What runs the encoder: compiled is torch's compiler, which takes a minute or more "
        "before the first batch; openvino is for CPUs and wants tspcli[openvino].",
    ),
)
"""How the encoder is run."""

decoding_options = together(
    click.option(
        "--workers",
        type=NumberOr("auto", None),
        default="auto",
        show_default=True,
        help="Decode processes.",
    ),
    click.option(
        "--decoder",
        type=click.Choice(DECODER_NAMES),
        default="auto",
        show_default=True,
        help="auto takes the fastest that is right, and the next one where it fails.",
    ),
)
"""How videos are decoded."""

engine_options = together(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="This machine, or a Ray cluster whose nodes see the same paths.",
    ),
    click.option(
        "--ray-address", metavar="HOST:PORT", help="The cluster.  [default: this machine's]"
    ),
)
"""Where the work is done."""

row_time_options = together(
    click.option(
        "--frame-rate",
        metavar="FPS",
        help="For files that do not tell, such as released ones: frames a second (15). One that "
        "contradicts a file is an error.",
    ),
    click.option(
        "--stride", type=POSITIVE, help="Likewise: frames from clip to clip (16; THUMOS14: 1)."
    ),
    click.option("--clip-length", type=POSITIVE, help="Likewise: frames a clip (16)."),
)
"""Where the rows of a store lie in time."""


def json_option(what: str = "the report") -> Option:
    """``--json``: figures for programs, on stdout."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON on stdout.")
