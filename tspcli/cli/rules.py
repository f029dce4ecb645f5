"""What goes together on the command line: options that need others, files that are kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


class RuledOption(click.Option):
    """An option that is refused where it would have no effect; see :class:`RuledCommand`.

    Args:
        requires: Other parameters of which one has to be given, such as ``annotations``, or to have
            a value, such as ``engine=ray``.
        conflicts: Parameters that may not be given as well.
        alone_with: The only parameters that may be given as well.
        takes_all: Whether it takes all values that follow it, as a shell's ``*.mp4`` expands.
    """

    def __init__(
        self,
        *words: Any,
        requires: Sequence[str] = (),
        conflicts: Sequence[str] = (),
        alone_with: Sequence[str] | None = None,
        takes_all: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(*words, **more)
        self.requires = requires
        self.conflicts = conflicts
        self.alone_with = alone_with
        self.takes_all = takes_all


def ruled_option(*words: str, **more: Any) -> Callable[[Any], Any]:
    """A :class:`RuledOption`, as ``click.option`` makes options."""
    return click.option(*words, cls=RuledOption, **more)


class RuledCommand(click.Command):
    """A command that checks what its options require and exclude, before it does anything.

    Args:
        one_of: Parameters of which exactly one has to be given.
    """

    def __init__(self, *words: Any, one_of: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*words, **more)
        self.one_of = one_of

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, self._spread(args))
        if not ctx.resilient_parsing:
            self._check(ctx)
        return rest

    def _spread(self, args: list[str]) -> list[str]:
        """Repeat options that take all values that follow, once per value."""
        names = {
            name
            for option in self.params
            if isinstance(option, RuledOption) and option.takes_all
            for name in option.opts
        }
        spread: list[str] = []
        current, n_values = "", 0
        for position, word in enumerate(args):
            if word == "--":
                return spread + args[position:]
            name = word.partition("=")[0]
            if word.startswith("-"):
                current, n_values = (name, int("=" in word)) if name in names else ("", 0)
            elif current:
                spread += [current] if n_values else []
                n_values += 1
            spread.append(word)
        return spread

    def _check(self, ctx: click.Context) -> None:
        from tspcli.errors import UsageError

        shown = {str(p.name): p.make_metavar(ctx).strip("[]") for p in self.params if p.name}
        shown |= {str(p.name): p.opts[0] for p in self.params if isinstance(p, click.Option)}
        given = [name for name in shown if is_given(ctx, name)]
        if self.one_of and len(set(self.one_of) & set(given)) != 1:
            names = " or ".join(shown[name] for name in self.one_of)
            raise UsageError(f"Give either {names}.", option=self.one_of[0])
        for option in self.params:
            if not isinstance(option, RuledOption) or option.name not in given:
                continue
            excluded = set(option.conflicts)
            if option.alone_with is not None:
                excluded |= {*shown} - {*option.alone_with, option.name}
            if found := [shown[name] for name in given if name in excluded]:
                raise UsageError(
                    f"{option.opts[0]} cannot be combined with {', '.join(found)}.",
                    option=option.name,
                    conflicts=found,
                )
            needed = [rule.partition("=") for rule in option.requires]
            if needed and not any(
                str(ctx.params.get(name)) == value if value else name in given
                for name, _, value in needed
            ):
                names = " or ".join(f"{shown[n]}{v and f' {v}'}" for n, _, v in needed)
                raise UsageError(f"{option.opts[0]} needs {names}.", option=option.name)


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter stands on the command line or in the environment."""
    source = ctx.get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


Named = list[tuple[str, "str | Path | None"]]
"""Paths, each with the option that names it; None where it is not given."""


def require_apart(outputs: Named, inputs: Named) -> None:
    """Raise if an output is an input, or two outputs are one file, by whatever name.

    Raises:
        UsageError: Naming both.
    """
    from tspcli.errors import UsageError

    taken = {_place(Path(path)): (option, path) for option, path in inputs if path is not None}
    for option, path in outputs:
        if path is None:
            continue
        place = _place(Path(path))
        if place in taken:
            other, its_path = taken[place]
            raise UsageError(
                f"{option} ({path}) is the same file as {other} ({its_path}), which it would "
                "overwrite.",
                remedy=f"Give {option} another path.",
            )
        taken[place] = (option, path)


def _place(path: Path) -> object:
    """What two names of one file have in common."""
    try:
        found = path.stat()
    except OSError:
        return path.absolute().resolve()
    return found.st_dev, found.st_ino
