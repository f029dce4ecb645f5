"""Options that several commands share, so that name, default and help stand once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def engine_options(command: Command) -> Command:
    """``--engine`` and ``--ray-address``: where the work is done."""
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="This machine, or a Ray cluster whose nodes see the same paths.",
    )
    address = click.option(
        "--ray-address", metavar="HOST:PORT", help="The cluster. [default: this machine's]"
    )
    return engine(address(command))
