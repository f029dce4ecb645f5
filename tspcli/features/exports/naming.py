"""Names of exported videos: with ``v_`` or without, and never outside the output folder."""

from __future__ import annotations

import re

from tspcli.annotations.names import PREFIX, canonical_id
from tspcli.errors import ExportError, UsageError

_MAX_BYTES = 240
"""File systems allow 255 bytes; ``_flow.npy`` and a temporary name have to fit as well."""

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


def exported_name(key: str, store_prefix: str, rule: str, wants_prefix: bool) -> str:
    """The name of a video in the export.

    Whether a store's keys carry the prefix is a property of the whole store, because an ID may
    itself begin with ``v_``.

    Args:
        key: Its key in the store.
        store_prefix: ``v_`` if all keys of that store start with it, else nothing.
        rule: ``auto`` follows the target; ``keep``, ``add:PREFIX`` and ``strip:PREFIX`` are orders.
        wants_prefix: Whether the target's reader needs names with ``v_``.

    Raises:
        ExportError: If a prefix is to be stripped from a name without it.
    """
    if rule == "keep":
        return key
    if rule == "auto":
        return PREFIX + canonical_id(key, store_prefix) if wants_prefix else key
    action, prefix = rule.split(":", 1)
    if action == "add":
        return key if store_prefix and store_prefix == prefix else prefix + key
    if not key.startswith(prefix) or key == prefix:
        raise ExportError(
            f"{key!r} does not start with {prefix!r}, so nothing can be stripped from it.",
            remedy="Use --name-prefix keep.",
        )
    return key[len(prefix) :]


def check_file_name(name: str) -> None:
    """Raise unless ``name`` can name a file inside the output folder, on any system.

    Raises:
        ExportError: Naming what is wrong with it.
    """
    fault = None
    if not name or name in (".", ".."):
        fault = "it is no name"
    elif "/" in name or "\\" in name:
        fault = "it would leave the output folder or make a folder in it"
    elif any(not c.isprintable() for c in name):
        fault = "it has control characters"
    elif name.startswith("."):
        fault = "it would be hidden"
    elif len(name.encode("utf-8", "replace")) > _MAX_BYTES:
        fault = f"it is longer than {_MAX_BYTES} bytes"
    else:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            fault = "it is not valid Unicode"
    if fault:
        raise ExportError(
            f"The video {name!r} cannot be exported under that name: {fault}.",
            remedy="Rename the video (tsp extract --key) and compute or merge the store again.",
        )
