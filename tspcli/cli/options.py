"""Options: kinds of values, options made from settings, and options that commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tspcli.cli.rules import ruled_option
from tspcli.encoders import PRECISIONS, RUNTIMES
from tspcli.sampling.spec import ALIGNS, TAILS
from tspcli.video.decoders import DECODERS

if TYPE_CHECKING:
    from tspcli.core.settings import Setting, Settings
    from tspcli.sampling import Sampling

PATH = click.Path(path_type=Path)
"""A file or folder that may not be there; whoever opens it reports that."""

VIDEO_PATH = click.Path(exists=True, readable=False, path_type=Path)
"""A file, folder or list that is named on the command line, where a mistyped one ends at once.

Files that a list names may be missing: each is a failure of its own, and the others continue. A
file that cannot be read is reported, with its reason, when it is opened.
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


class TableChoice(click.Choice[str]):
    """One of the names in a table to which entries may be added at run time.

    Args:
        table: The table; its keys are the names.
        others: Further words, before the names.
    """

    def __init__(self, table: Mapping[str, object], *others: str) -> None:
        self._table = table
        self._others = others
        super().__init__(())

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]  # click has an attribute
        return (*self._others, *self._table)

    @choices.setter
    def choices(self, _: object) -> None:
        """Set by click to what it was made with: nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self._table:  # installed packages may have added it
            return str(value)
        return super().convert(value, param, ctx)


class NonNegativeFloat(click.ParamType):
    """A finite number that is not negative."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is not a finite number of at least 0.", param, ctx)
        return number


class IntList(click.ParamType):
    """Whole numbers with commas between them, such as ``4,6``."""

    name = "N,N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 4,6.", param, ctx)


Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]


def together(*options: Option) -> Callable[[Command], Command]:
    """Several options as one decorator; the help page shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class SettingType(click.ParamType):
    """The values of a setting, checked as the setting checks them; lists have commas.

    Args:
        setting: The setting.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        names = {int: "integer", float: "number", str: "text"}
        name = "|".join(setting.choices) or names.get(setting.kind, "value")
        self.name = f"{name},…" if setting.many else name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Choices in brackets, kinds in capitals."""
        return f"[{self.name}]" if self._setting.choices else self.name.upper()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        setting, parse = self._setting, {int: int, float: float}.get(self._setting.kind, str)
        try:
            if setting.many:
                parts = [part.strip() for part in value.split(",")]
                return setting.checked([parse(part) for part in parts if part])
            return setting.checked(parse(value))
        except (ValueError, TypeError, OverflowError):
            self.fail(f"{value!r} is not {setting.expected}.", param, ctx)


def setting_options(
    settings: type[Settings],
    names: Iterable[str] | None = None,
    *,
    text: Callable[[Setting], str] = lambda setting: default_text(setting),
) -> Callable[[Command], Command]:
    """An option per setting, without a default of its own: what is not given is None.

    Args:
        settings: The settings.
        names: Those that get an option; all by default.
        text: The help of each.
    """
    from tspcli.core.settings import settings_of  # takes longer than the rest of a help page

    known = settings_of(settings)
    return together(*(_setting_option(known[name], text) for name in names or known))


def _setting_option(setting: Setting, text: Callable[[Setting], str]) -> Option:
    name = option_name(setting.name)
    shape: dict[str, Any] = {"type": SettingType(setting)}
    if setting.kind is bool and not setting.many:
        name, shape = f"{name}/--no-{name[2:]}", {}
    return click.option(name, setting.name, default=None, help=text(setting), **shape)


def default_text(setting: Setting) -> str:
    """What a setting means, and its default."""
    default = setting.default
    if default in (None, "", ()):
        return setting.description
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else shown
    return f"{setting.description}  [default: {shown}]"


def option_name(name: str) -> str:
    """The command line's name of a parameter."""
    return f"--{name.replace('_', '-')}"


def videos_option(*, required: bool = False, text: str = "") -> Option:
    """``--videos``: what to decode."""
    return ruled_option(
        "--videos",
        "-v",
        multiple=True,
        takes_all=True,
        required=required,
        type=VIDEO_PATH,
        metavar="DIR|FILE|LIST.txt",
        help=text
        or "Videos, folders (searched for video files) or .txt lists; several, or repeated.",
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
        click.option("--backbone", help="The backbone, if the weights do not say it."),
        click.option("--seed", type=int, help="Seed of --weights random."),
    )


stride_option = click.option(
    "--stride", type=POSITIVE, help="Frames between the starts of clips (TSP: 16)."
)
"""Of commands that cut videos into clips; not given, it is the stride that the weights suit."""

clip_options = together(
    click.option("--clip-length", type=POSITIVE, help="Frames per clip (TSP: 16)."),
    click.option(
        "--frame-rate",
        metavar="FPS|native",
        help="Frames per second inside a clip (TSP: 15), or the video's own frames.",
    ),
    stride_option,
    click.option(
        "--grid-rate", metavar="FPS", help="Resample videos to this rate first (TSP: 30)."
    ),
    click.option("--interval", type=POSITIVE, help="Take every N-th frame (1)."),
    ruled_option(
        "--window",
        metavar="N|SECs",
        conflicts=["interval"],
        help="Spread a clip's frames evenly over N frames, or over seconds such as 3.2s.",
    ),
    click.option(
        "--align",
        type=click.Choice(ALIGNS),
        help="Count clips from their first frame (start) or from their middle (center).",
    ),
    click.option(
        "--phase", type=click.IntRange(min=0), help="Frame at which the first clip is (0)."
    ),
    click.option(
        "--tail",
        type=click.Choice(TAILS),
        help="The video's end: drop an incomplete clip, move it back (flush), or fill every clip "
        "with the last frame (repeat) or zeros.",
    ),
)
"""How videos are cut into clips; what is not given is what the weights were made for."""

encoder_options = together(
    click.option(
        "--batch-size",
        type=NumberOr("auto", None),
        default="auto",
        show_default=True,
        help="Clips per batch.",
    ),
    device_option(several=True),
    click.option("--gpus", type=NumberOr("all", "all"), help="Number of GPUs, or 'all'."),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="fp32 rounds nothing; auto is fp16 on CUDA, fp32 on a CPU.",
    ),
    click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default="torch",
        show_default=True,
        help="What runs the encoder: compiled is torch's compiler, which takes a minute or more "
        "before the first batch; openvino is for CPUs and needs tspcli[openvino].",
    ),
)
"""How the encoder is run."""

decoding_options = together(
    click.option(
        "--workers",
        type=NumberOr("auto", None),
        default="auto",
        show_default=True,
        help="Decode processes: in all on one machine, per worker on a Ray cluster.",
    ),
    click.option(
        "--decoder",
        type=TableChoice(DECODERS, "auto"),
        default="auto",
        show_default=True,
        help="auto takes the fastest exact decoder, and the next one for videos where it fails.",
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
    ruled_option(
        "--ray-address",
        requires=["engine=ray"],
        metavar="HOST:PORT",
        help="The cluster.  [default: this machine's]",
    ),
)
"""Where the work is done."""


def row_time_options(*, conflicts: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Where the rows of a store lie in time, for stores that do not say it.

    Args:
        conflicts: Parameters with which they cannot be combined.
    """
    return together(
        ruled_option(
            "--frame-rate",
            metavar="FPS",
            conflicts=conflicts,
            help="Frames per second (15) of files that do not store it, such as released ones; an "
            "error if a file says otherwise.",
        ),
        ruled_option(
            "--stride",
            type=POSITIVE,
            conflicts=conflicts,
            help="Likewise: frames between the starts of clips (16; THUMOS14: 1).",
        ),
        ruled_option(
            "--clip-length",
            type=POSITIVE,
            conflicts=conflicts,
            help="Likewise: frames per clip (16).",
        ),
    )


def row_times(
    frame_rate: str | None, stride: int | None, clip_length: int | None
) -> Sampling | None:
    """The sampling that the row time options state; what they leave to TSP is shown on stderr.

    Returns:
        The sampling; None if none of the options is given.
    """
    from tspcli.store.store_set import given_sampling

    given = given_sampling(frame_rate, stride, clip_length)
    if given is not None and None in (frame_rate, stride, clip_length):
        from tspcli.cli.console import warn

        warn(
            f"row times: --frame-rate {given.frame_rate} --stride {given.stride} --clip-length "
            f"{given.clip_length}; what was not given is TSP's."
        )
    return given


def json_option(what: str = "the report") -> Option:
    """``--json``: figures for programs, on stdout."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON on stdout.")


def column_option(*, requires: Sequence[str] = ()) -> Option:
    """``--column``: names of columns, for every command that reads tables of annotations.

    Args:
        requires: The parameter of the annotations, where they need not be given.
    """
    return ruled_option(
        "--column",
        "columns",
        multiple=True,
        metavar="ROLE=NAME",
        requires=requires,
        callback=lambda _ctx, _param, values: named_columns(values),
        help="For tables: the name of a column that is not recognised; roles are video, start, "
        "end, label.",
    )


def named_columns(values: Iterable[str]) -> dict[str, str]:
    """The names of columns by role, from ``ROLE=NAME``."""
    named: dict[str, str] = {}
    for role, name in (split_name(value, "--column") for value in values):
        if role in named:
            raise click.BadParameter(f"{role} is named twice.", param_hint="--column")
        named[role] = name
    return named


def split_name(value: str, option: str) -> tuple[str, str]:
    """The two parts of ``NAME=VALUE``."""
    name, separator, rest = value.partition("=")
    if not separator or not name or not rest:
        raise click.BadParameter(f"{value!r} is not NAME=VALUE.", param_hint=option)
    return name, rest
