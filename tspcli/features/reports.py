"""The report that a run leaves beside its store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tspcli.errors import StoreError
from tspcli.parsing import MALFORMED, parse_json


def report_path(store: str | Path) -> Path:
    """Where the report of a store lies: ``feats.h5.report.json``."""
    store = Path(store)
    return store.with_name(store.name + ".report.json")


def read_report(store: Path) -> dict[str, Any] | None:
    """The report of the run that made a store, or None if it left none.

    Returns:
        What :meth:`tspcli.extraction.report.ExtractReport.to_dict` tells; every one of its
        ``videos`` has a ``key`` and a ``status``.

    Raises:
        StoreError: If it is damaged.
    """
    path = report_path(store)
    try:
        report = dict(parse_json(path.read_text(encoding="utf-8")))
        for video in report["videos"]:
            _ = video["key"], video["status"]
        frozenset((report.get("shard") or {}).get("keys") or ())
    except FileNotFoundError:
        return None
    except MALFORMED as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            remedy="Delete it, or run the extraction again.",
        ) from error
    return report
