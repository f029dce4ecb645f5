"""Names of exported videos: with ``v_`` or without, and never outside the output folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from tspcli.core.video_names import PREFIX, shared_prefix
from tspcli.errors import ExportError, UsageError

_MAX_BYTES = 240
"""File systems allow 255 bytes; ``_flow.npy`` and a temporary name have to fit as well."""

_UNFIT = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control characters, those that turn the direction of writing, halves of surrogate pairs, and what
breaks a line; spaces of any other script are fit."""

_JOINERS = "\u200c\u200d"
"""Fit as well: Persian, Indic scripts and emoji need them."""

_RULE = re.compile(r"auto|keep|(?:add|strip):.+")


def check_rule(rule: str) -> None:
    """Raise unless ``rule`` is ``auto``, ``keep``, ``add:PREFIX`` or ``strip:PREFIX``.

    Raises:
        UsageError: If it is not.
    """
    if not _RULE.fullmatch(rule):
        raise UsageError(
            f"{rule!r} is no rule for names.", remedy="Use keep, add:v_, strip:v_ or auto."
        )


def exported_names(keys: Sequence[str], rule: str, wants_prefix: bool) -> dict[str, str]:
    """The names of videos in the export, by their keys.

    No prefix is put before a name that has it already.

    Args:
        keys: Their keys in the stores.
        rule: ``auto`` follows the target; ``keep``, ``add:PREFIX`` and ``strip:PREFIX`` are orders.
        wants_prefix: Whether the target's reader needs names with ``v_``.

    Raises:
        ExportError: If two videos would get one name, or no name has the prefix to be stripped.
    """
    if rule == "auto":
        rule = f"add:{PREFIX}" if wants_prefix else "keep"
    action, _, prefix = rule.partition(":")
    if action == "strip" and not any(_has(key, prefix) for key in keys):
        raise ExportError(
            f"No video's name starts with {prefix!r} (the first: {keys[0]!r}), so there is nothing "
            "to strip.",
            remedy="Use --name-prefix keep.",
        )
    names: dict[str, str] = {}
    seen: dict[str, str] = {}
    for key in keys:
        name = key
        if action == "add" and not _has(key, prefix):
            name = prefix + key
        elif action == "strip" and _has(key, prefix):
            name = key[len(prefix) :]
        if name in seen:
            raise ExportError(
                f"{seen[name]!r} and {key!r} would both be exported as {name!r}.",
                remedy="Change --name-prefix, or rename one of them.",
            )
        seen[name] = key
        names[key] = name
    return names


def reader_prefix(names: Iterable[str], rule: str) -> str:
    """What readers that put a prefix before every ID have to put before these.

    One prefix is all that they can be told, so it is nothing unless all names have it.
    """
    names = list(names)
    added = rule.removeprefix("add:") if rule.startswith("add:") else ""
    if added == PREFIX:
        return added
    return added + shared_prefix(name[len(added) :] for name in names)


def _has(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and key != prefix


def check_file_name(name: str, suffix: str = "") -> None:
    """Raise unless ``name`` can name a file inside the output folder, on any system.

    Raises:
        ExportError: Naming what is wrong with it, or with the suffix that follows it.
    """
    if fault := _fault(name):
        raise ExportError(
            f"The video {name!r} cannot be exported under that name: {fault}.",
            remedy="Rename the video (tsp extract --key) and compute or merge the store again.",
        )
    if fault := _fault(name + suffix):
        raise ExportError(
            f"--suffix {suffix!r} cannot follow the name {name!r}: {fault}.",
            remedy="Give a suffix such as _tsp.",
        )


def _fault(name: str) -> str | None:
    """What is wrong with a file name, or None."""
    if not name or name in (".", ".."):
        return "it is no name"
    if "/" in name or "\\" in name:
        return "it would leave the output folder or make a folder in it"
    if any(unicodedata.category(c) in _UNFIT and c not in _JOINERS for c in name):
        return "it has control or invisible characters or is not valid Unicode"
    if name.startswith("."):
        return "it would be hidden"
    if len(name.encode("utf-8", "replace")) > _MAX_BYTES:
        return f"it is longer than {_MAX_BYTES} bytes"
    return None


def companions_of(out: Path) -> Path:
    """The folder beside a single exported file: ``anet.hdf5.export``."""
    return out.with_name(out.name + ".export")
