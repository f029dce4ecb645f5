"""The shards of one run: whether all are there, whether they fit, and what their reports say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tspcli.features.atomic import write_aside
from tspcli.features.reports import read_report, report_path
from tspcli.features.store import open_store
from tspcli.wording import storable

_SHARD = re.compile(r"(?P<name>.+)\.shard-(?P<index>\d+)-of-(?P<count>\d+)(?P<suffix>.*)")
"""The names that `tsp extract --shard` gives."""
_Run = tuple[Path, str, str, int]
"""Folder, name, suffix and number of shards."""

_IN_STORE = ("done", "kept")
_JOINED = ("settings", "counts", "videos", "merged_from")
"""What of a run's report stands once in the merged one; the rest stands there for each run."""
_NAMED = 5


def _shard_of(path: Path) -> tuple[_Run, int] | None:
    """The run that a store is a shard of, by its name, and which one it is."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return None
    return (path.parent, match["name"], match["suffix"], int(match["count"])), int(match["index"])


def other_shards(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The shards of the same runs that are not given: (those without any features, missing)."""
    runs: dict[_Run, set[int]] = {}
    for path in paths:
        if (shard := _shard_of(path)) is not None:
            runs.setdefault(shard[0], set()).add(shard[1])
    empty: list[Path] = []
    missing: list[Path] = []
    for (folder, name, suffix, count), given in runs.items():
        for index in sorted(set(range(1, count + 1)) - given):
            path = folder / f"{name}.shard-{index}-of-{count}{suffix}"
            (empty if _ended_without_features(path) else missing).append(path)
    return empty, missing


def _ended_without_features(path: Path) -> bool:
    """Whether a shard was run, and none of its videos got features, so that it left no store."""
    if path.exists():
        return False
    report = read_report(path)
    return report is not None and not any(v["status"] in _IN_STORE for v in report["videos"])


def differing_plans(paths: Sequence[Path]) -> list[str]:
    """In what the shards of one run were not shared out by one plan, a line for each run.

    Args:
        paths: Stores, and shards that left a report alone.
    """
    runs: dict[_Run, list[Path]] = {}
    for path in paths:
        if (shard := _shard_of(path)) is not None:
            runs.setdefault(shard[0], []).append(path)
    return [text for shards in runs.values() if (text := _difference(shards))]


def _difference(paths: Sequence[Path]) -> str | None:
    by_plan: dict[str | None, list[str]] = {}
    held: Counter[str] = Counter()
    planned: set[str] = set()
    ended: set[str] = set()
    for path in paths:
        report = read_report(path) or {"videos": []}
        shard = report.get("shard") or {}
        plan = shard.get("plan")
        if path.exists():
            with open_store(path) as store:
                plan = store.metadata.shard_plan
                held.update(list(store))
        by_plan.setdefault(plan, []).append(path.name)
        planned.update(shard.get("keys") or ())
        ended.update(str(video.get("key")) for video in report["videos"])
    if len(by_plan) < 2:
        return None
    groups = [
        f"{_some(names)} by {'no known plan' if plan is None else f'plan {plan[:8]}'}"
        for plan, names in by_plan.items()
    ]
    lost = sorted(planned - ended - held.keys())
    doubled = sorted(key for key, count in held.items() if count > 1)
    return (
        f"The shards were not planned over the same videos and durations: {'; '.join(groups)}."
        + (f" No shard has {_some(lost)}." if lost else "")
        + (f" Several have {_some(doubled)}." if doubled else "")
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def merge_reports(paths: Sequence[Path], out: Path) -> int:
    """Join the runs' reports, so that nothing they say is lost; leave no stale one behind.

    Returns:
        How many videos failed.
    """
    target = report_path(out)
    videos: list[Any] = []
    runs: list[Any] = []
    settings: Any = {}
    for path in paths:
        report = read_report(path)
        if report is not None:
            videos += report["videos"]
            settings = report.get("settings", settings)
            alone = {key: value for key, value in report.items() if key not in _JOINED}
            shard = alone.get("shard")
            if isinstance(shard, dict):
                # Its keys are those of the videos of all shards.
                alone["shard"] = {name: value for name, value in shard.items() if name != "keys"}
            known = report.get("runs")
            runs += known if isinstance(known, list) and known else [alone]
    if not runs:
        target.unlink(missing_ok=True)
        return 0
    counts: dict[str, int] = {}
    for video in videos:
        counts[video["status"]] = counts.get(video["status"], 0) + 1
    merged = {
        "out": storable(str(out)),
        "settings": settings,
        "merged_from": [storable(str(path)) for path in paths],
        "runs": runs,
        "counts": counts,
        "videos": videos,
    }
    with write_aside(target) as aside:
        aside.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return counts.get("failed", 0)
