"""Where output goes: results to stdout, all else to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tspcli.errors import TspError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_UNBOUNDED_COLUMNS = 10_000
_FOLDED_COLUMNS = 16
"""The narrowest that a column of texts becomes."""


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


def print_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    texts: Collection[str] = (),
    console: Console,
) -> None:
    """Print a table, or, where that does not fit, each row as a paragraph under its name.

    Args:
        titles: Of the columns; the first names a row.
        rows: Cells, as rich's markup.
        texts: Titles of the columns that may be folded and stand at the left; the others are
            numbers.
        console: Where to.
    """
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    lengths = [
        max(cell_len(Text.from_markup(cell).plain) for cell in (title, *cells))
        for title, *cells in zip(titles, *rows, strict=True)
    ]
    widths = [
        min(length, _FOLDED_COLUMNS) if title in texts else length
        for title, length in zip(titles, lengths, strict=True)
    ]
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title, least in zip(titles, widths, strict=True):
            if title in texts:
                table.add_column(title, overflow="fold", min_width=least)
            else:
                table.add_column(title, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    for name, *cells in rows:
        console.print(f"[bold]{name}[/]" if titles[0] in texts else f"[bold]{titles[0]} {name}[/]")
        told = [f"{title} {cell}" for title, cell in zip(titles[1:], cells, strict=True) if cell]
        console.print(Padding(Text.from_markup(", ".join(told)), (0, 0, 0, 2)))


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
