"""Settings: frozen dataclasses whose values are checked by their types, TOML in and out."""

from __future__ import annotations

import math
import numbers
import reprlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
import msgspec.inspect as kinds
from msgspec import Meta

from tspcli.core.text import storable
from tspcli.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Chosen = TypeVar("Chosen", bound="Settings")
PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
PositiveOrInfinite = Annotated[float, Meta(gt=0, extra={"infinite": True})]
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Setting:
    """One field of some settings, as its type declares it.

    Attributes:
        name: The field's name.
        kind: ``bool``, ``int``, ``float``, ``str`` or ``object`` (anything else) of its value, or
            of its items.
        hint: The complete type.
        is_known: Whether the type says enough to check a value.
        many: Whether it is a tuple of such values.
        optional: Whether it may be None.
        choices: The only values, if there are such.
        low, high: The range of a number; infinite where it is open.
        above: Whether ``low`` itself is outside of the range.
        infinite: Whether it may be infinite, as ``Meta(extra={"infinite": True})`` declares.
        default: Its default, None if it has to be given.
        description: What it means.
    """

    name: str
    kind: type
    hint: Any
    is_known: bool
    many: bool
    optional: bool
    choices: tuple[str, ...]
    low: float
    high: float
    above: bool
    infinite: bool
    default: Any
    description: str

    @property
    def expected(self) -> str:
        """What values it takes, in words."""
        if self.choices:
            names = ", ".join(self.choices)
            return f"a list of {names}, each at most once" if self.many else f"one of {names}"
        single, plural = {
            bool: ("true or false", "truth values"),
            int: ("a whole number", "whole numbers"),
            float: ("a number", "numbers")
            if self.infinite
            else ("a finite number", "finite numbers"),
            str: ("text", "texts"),
        }.get(self.kind, ("a valid value", "valid values"))
        text = f"a list of {plural}" if self.many else single
        if self.high < math.inf:
            low = f"{'above' if self.above else 'from'} {_shown(self.low)}"
            return f"{text} {low} to {_shown(self.high)}"
        if self.low > -math.inf:
            return f"{text} {'above' if self.above else 'of at least'} {_shown(self.low)}"
        return text

    def checked(self, value: Any) -> Any:
        """The value as the field holds it: numbers that are not Python's own become so.

        Raises:
            ValueError: If it is not of the field's kind, or out of range.
        """
        if value is None and self.optional:
            return None
        if self.many and isinstance(value, list | tuple):
            value = [self._plain(item) for item in value]
            if self.choices and len(set(value)) != len(value):
                raise ValueError("repeated")
        else:
            value = self._plain(value)
        return msgspec.convert(value, self.hint) if self.is_known else value

    def _plain(self, value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if self.kind in (int, float) and isinstance(value, numbers.Real):
            number = int(value) if isinstance(value, numbers.Integral) else float(value)
            if not -math.inf < number < math.inf and not (self.infinite and number == math.inf):
                raise ValueError("not finite")
            return float(number) if self.kind is float else number
        if self.kind is str and isinstance(value, int | float | Path):
            return str(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not finite")
        return value


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


_KNOWN: dict[type, dict[str, Setting]] = {}


def settings_of(kind: type[Settings]) -> dict[str, Setting]:
    """The fields of some settings by name; nested settings are left out."""
    if kind not in _KNOWN:
        hints = get_type_hints(kind, include_extras=True)
        _KNOWN[kind] = {
            field.name: _setting(
                field.name, hints[field.name], None if field.default is MISSING else field.default
            )
            for field in fields(kind)
            if not (isinstance(hints[field.name], type) and issubclass(hints[field.name], Settings))
        }
    return _KNOWN[kind]


def _setting(name: str, hint: Any, default: Any) -> Setting:
    meta = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Meta)]
    description = next((m.description for m in meta if m.description), "")
    infinite = any((m.extra or {}).get("infinite", False) for m in meta)
    info: Any = None
    with suppress(TypeError):  # a union with types that msgspec does not know, such as Fraction
        info = _bare(kinds.type_info(hint))
    optional = isinstance(info, kinds.UnionType) and info.includes_none
    if isinstance(info, kinds.UnionType):
        parts = [part for part in info.types if not isinstance(part, kinds.NoneType)]
        info = _bare(parts[0]) if len(parts) == 1 else info
    many = isinstance(info, kinds.VarTupleType)
    item = _bare(info.item_type) if many else info
    low, high, above = -math.inf, math.inf, False
    if isinstance(item, kinds.IntType | kinds.FloatType):
        above = item.gt is not None
        low = next((x for x in (item.gt, item.ge) if x is not None), low)
        high = item.le if item.le is not None else high
    choices = tuple(map(str, item.values)) if isinstance(item, kinds.LiteralType) else ()
    plain: dict[type, type] = {
        kinds.BoolType: bool,
        kinds.IntType: int,
        kinds.FloatType: float,
        kinds.StrType: str,
        kinds.LiteralType: str,
    }
    kind = plain.get(type(item), object)
    return Setting(
        name, kind, hint, info is not None, many, optional, choices, low, high, above, infinite,
        default, description,
    )  # fmt: skip


def _bare(info: Any) -> Any:
    return info.type if isinstance(info, kinds.Metadata) else info


@dataclass(frozen=True)
class Settings:
    """Base of settings: every value is checked against its field's type when they are made.

    Fields are declared as ``name: Annotated[int, Meta(ge=1, description="…")] = 3``.

    Raises:
        UsageError: If a value is of the wrong kind or out of range, with ``option`` and ``value``.
    """

    def __post_init__(self) -> None:
        for name, setting in settings_of(type(self)).items():
            object.__setattr__(self, name, _checked(setting, getattr(self, name), ""))

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values, tuples as lists."""
        return {key: _listed(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls: type[Chosen], values: Mapping[str, Any], where: str = "") -> Chosen:
        """The inverse of :meth:`to_dict`; what is missing has its default."""
        return with_values(cls(), values, where or cls.__name__)


def with_values(settings: Chosen, values: Mapping[str, Any], where: str) -> Chosen:
    """Settings with some fields replaced; nested settings take a mapping.

    Raises:
        UsageError: If a field is unknown, or a value of the wrong kind or out of range.
    """
    known = [field.name for field in fields(settings)]
    changed: dict[str, Any] = {}
    checks = settings_of(type(settings))
    for name, value in values.items():
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"{where} has no setting {name!r}.",
                remedy=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}.",
                option=name,
            )
        if name in checks:
            changed[name] = _checked(checks[name], value, where)
        elif isinstance(value, Mapping):
            changed[name] = with_values(getattr(settings, name), value, f"{where}: {name}")
        else:
            changed[name] = value
    return replace(settings, **changed)


def _checked(setting: Setting, value: Any, where: str) -> Any:
    try:
        return setting.checked(value)
    except (ValueError, TypeError, OverflowError) as error:
        shown = reprlib.repr(value) if isinstance(value, int) else repr(value)
        raise UsageError(
            f"{where}{where and ': '}{setting.name} is {shown}; it must be {setting.expected}.",
            option=setting.name,
            value=value,
        ) from error


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read_toml_text(path: Path) -> str:
    """The text of a TOML file.

    Raises:
        UsageError: If it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", path=path) from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML as a dict.

    Raises:
        UsageError: If it is not valid.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not valid TOML: {error}.", path=where) from error


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML; bytes of names that are not UTF-8 are written as escapes."""
    import tomli_w

    return tomli_w.dumps(_storable(values))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items() if item is not None}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value
