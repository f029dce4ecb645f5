"""Kinds of values that commands take."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
"""A file or folder that may not be there; whoever opens it tells."""

VIDEO_PATH = click.Path(exists=True, readable=False, path_type=Path)
"""A file, folder or list that is named on the command line, where a mistyped one ends at once.

Files that a list names may be missing: each is a failure of its own, and the others go on. Whether
a file can be read is told when it is, with its reason.
"""

POSITIVE = click.IntRange(min=1)


class NumberOr(click.ParamType):
    """A positive whole number, or one word.

    Args:
        word: The word.
        value: What it stands for.
    """

    def __init__(self, word: str, value: Any) -> None:
        self.name = f"{word}|N"
        self._word = word
        self._value = value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == self._word:
            return self._value
        if not str(value).isdigit() or int(value) < 1:
            self.fail(
                f"{value!r} is neither a positive whole number nor {self._word!r}.", param, ctx
            )
        return int(value)


class Shard(click.ParamType):
    """``I/N``."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)/(\d+)", str(value))
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is not a shard such as 1/4 (the first of four).", param, ctx)
        return int(match[1]), int(match[2])


class Amount(click.ParamType):
    """A number that is not negative; neither infinite nor NaN, which passes every comparison."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is no number from 0 on.", param, ctx)
        return number


class Numbers(click.ParamType):
    """Whole numbers with commas between them, such as ``4,6``."""

    name = "N,N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 4,6.", param, ctx)
