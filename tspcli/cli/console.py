"""Where output goes: results to stdout, all else to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from tspcli.errors import TspError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_UNBOUNDED_COLUMNS = 10_000


def out_console() -> Console:
    """The console of results that people read, on stdout.

    Into a file or a pipe nothing is wrapped or cut, unless COLUMNS asks for it.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBOUNDED_COLUMNS
    return console


def err_console() -> Console:
    """The console of progress, warnings and errors, on stderr.

    Whoever reads it may go, or its disk may fill up: what the command does is worth more than its
    words, so it continues without them.
    """
    from rich.console import Console

    class Messages(Console):
        # All that is written passes here, the moving bars of a terminal too.
        def _check_buffer(self) -> None:
            try:
                super()._check_buffer()
            except OSError:
                self._buffer.clear()

        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Messages(stderr=True, highlight=False)


def say(text: str, style: str | None = None, *, console: Console | None = None) -> None:
    """Print a line on stderr, or on another console; names in it cannot steer the terminal."""
    console = console or err_console()
    console.print(printable(text), style=style, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a note on stderr."""
    say(f"Note: {text}", "yellow")


def live_bars(console: Console, width: int = 24) -> Progress:
    """Bars that vanish at the end; each task has a description and a field ``figures``."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=width),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def print_json(value: Any) -> None:
    """Print a result for programs: one JSON value on stdout, what is not finite as null."""
    json.dump(_finite(value), sys.stdout, indent=2, ensure_ascii=True, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    # JSON has no NaN, and strict readers stop at it.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def show_error(error: TspError) -> None:
    """Print what is wrong and what to do about it."""
    say(f"Error: {error.message}", "red")
    if error.remedy:
        say(error.remedy)


def printable(text: str) -> str:
    """Text with control characters and undecodable bytes made visible."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )
