"""Names of exported videos: with or without ``v_``, and never outside the output folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from tspcli.core.video_names import PREFIX, shared_prefix
from tspcli.errors import ExportError, UsageError

_MAX_BYTES = 240
"""File systems allow 255 bytes; ``_flow.npy`` and a temporary name have to fit too."""

_UNFIT = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that names must not have: control characters, changes of writing direction,
halves of surrogate pairs and line breaks. Spaces of any script are allowed."""

_JOINERS = "\u200c\u200d"
"""Allowed too, because Persian, Indic scripts and emoji need them."""

_RULE = re.compile(r"auto|keep|(?:add|strip):.+")


def check_rule(rule: str) -> None:
    """Raise if ``rule`` is not ``auto``, ``keep``, ``add:PREFIX`` or ``strip:PREFIX``.

    Raises:
        UsageError: With the rule.
    """
    if not _RULE.fullmatch(rule):
        raise UsageError(
            f"{rule!r} is not a rule for names; use keep, add:v_, strip:v_ or auto.",
            option="--name-prefix",
            value=rule,
        )


def exported_names(keys: Sequence[str], rule: str, wants_prefix: bool) -> dict[str, str]:
    """The names of videos in the export, by their keys. No prefix is added twice.

    Args:
        keys: Their keys in the stores.
        rule: ``keep``, ``add:PREFIX``, ``strip:PREFIX``, or ``auto`` for what the target needs.
        wants_prefix: Whether the target's reader needs names with ``v_``.

    Raises:
        ExportError: If two videos would get one name, or no name has the prefix to be stripped.
    """
    if rule == "auto":
        rule = f"add:{PREFIX}" if wants_prefix else "keep"
    action, _, prefix = rule.partition(":")
    if action == "strip" and not any(_has(key, prefix) for key in keys):
        raise ExportError(
            f"There is nothing to strip: no video's name starts with {prefix!r} (the first: "
            f"{keys[0]!r}).",
            option="--name-prefix",
            value=prefix,
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
                option="--name-prefix",
                value=name,
            )
        seen[name] = key
        names[key] = name
    return names


def reader_prefix(names: Iterable[str], rule: str) -> str:
    """The prefix for readers that put one before every ID; nothing unless all names have it.

    ``keep`` keeps IDs as well, so there is none.
    """
    if rule == "keep":
        return ""
    names = list(names)
    added = rule.removeprefix("add:") if rule.startswith("add:") else ""
    if added == PREFIX:
        return added
    return added + shared_prefix(name[len(added) :] for name in names)


def _has(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and key != prefix


def check_file_name(name: str, suffix: str = "") -> None:
    """Raise if ``name`` cannot name a file inside the output folder on every system.

    Raises:
        ExportError: With what is wrong with it, or with the suffix that follows it.
    """
    if fault := _fault(name):
        raise ExportError(
            f"The video {name!r} cannot be exported under that name: {fault}.",
            remedy="Rename the video (tsp extract --key) and compute or merge the store again.",
            video=name,
        )
    if fault := _fault(name + suffix):
        raise ExportError(
            f"--suffix {suffix!r} cannot follow the name {name!r}: {fault}.",
            option="--suffix",
            value=suffix,
        )


def _fault(name: str) -> str | None:
    """What is wrong with a file name, or None."""
    if not name or name in (".", ".."):
        return "it is not a name"
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
