"""Settings as plain values: TOML in and out, checked field by field, and compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from tspcli.core.text import storable
from tspcli.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml_text(path: Path) -> str:
    """The text of a TOML file.

    Raises:
        UsageError: If it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", remedy="Give a TOML file.") from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML as a dict.

    Raises:
        UsageError: If it is none.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no TOML: {error}.", remedy="Correct that line.") from error


def with_values(settings: Any, values: Mapping[str, Any], where: str) -> Any:
    """Settings with some fields replaced; each value is checked against its field's type.

    Raises:
        UsageError: If a field is unknown or a value of the wrong kind.
    """
    hints = get_type_hints(type(settings))
    known = {field.name for field in fields(settings)}
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                f"{where} has no setting {key!r}.",
                remedy=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}.",
            )
        converted[key] = _convert(value, hints[key], key, where)
    return replace(settings, **converted)


def _convert(value: Any, kind: Any, key: str, where: str) -> Any:
    text = str(kind)
    try:
        if text in ("<class 'bool'>", "bool | None") and isinstance(value, bool):
            return value
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind is str and isinstance(value, str | int | float | Path):
            return str(value)
        if text.startswith("tuple") and isinstance(value, Sequence) and not isinstance(value, str):
            item = str if "str" in text else int
            if all(isinstance(v, item) and not isinstance(v, bool) for v in value):
                return tuple(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(
        f"{where}: {key} is {value!r}.",
        remedy=f"It has to be {text.replace('<class ', '').strip('>')}.",
    )


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML; enough for settings."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            continue
        lines.append(f"{key} = {_toml_value(value)}")
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", to_toml(value).rstrip("\n")]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for characters beyond 16 bits; DEL has to be escaped.
        return json.dumps(storable(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return "[" + ", ".join(_toml_value(v) for v in value) + "]"
