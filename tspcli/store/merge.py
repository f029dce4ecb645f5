"""Joining stores, or the shards of one run, into one store.

Three parts: merging itself; the shards of a run (whether all are there, whether one plan assigned
their videos, and what their reports say); and stores of links, which hold no rows but lead to those
of other stores, where copying them takes too long. Links are relative and lead nowhere but into the
folder of the file that holds them, so that a file from elsewhere cannot point at others' files.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import h5py

from tspcli.core.files import remove_leftovers, replacing
from tspcli.core.run_dir import one_writer, read_report, report_path
from tspcli.core.text import storable
from tspcli.errors import StoreError, StoreMismatchError, UsageError
from tspcli.store.parts import iter_store
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import open_store
from tspcli.store.store_set import StoreSet
from tspcli.store.store_writer import new_store, write_store

_SHARD = re.compile(r"(?P<name>.+)\.shard-(?P<index>\d+)-of-(?P<count>\d+)(?P<suffix>.*)")
"""The names that `tsp extract --shard` gives."""
_Run = tuple[Path, str, str, int]
"""Folder, name, suffix and number of shards."""

_IN_STORE = ("done", "kept")
_JOINED = ("settings", "counts", "videos", "merged_from")
"""What of a run's report stands once in the merged one; the rest stands there for each run."""
_NAMED = 5


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote.

    Attributes:
        out: The store.
        stores: The inputs.
        n_videos: Videos of each input.
        n_rows: Total number of rows.
        dim: Width of a row.
        n_failed: Videos that failed in the runs that made the inputs, by their reports.
        missing_shards: Shards of the inputs' runs that were not given, which ``partial`` allows.
        differing_plans: How the shards of one run do not fit each other, which ``partial`` allows.
    """

    out: str
    stores: list[str]
    n_videos: list[int]
    n_rows: int
    dim: int
    n_failed: int = 0
    missing_shards: list[str] = field(default_factory=list)
    differing_plans: list[str] = field(default_factory=list)


def merge_stores(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    partial: bool = False,
    link: bool = False,
) -> MergeReport:
    """Join stores into one, which is written aside and renamed into place.

    Rows and attributes are taken over as they are, in constant memory. The reports of the runs
    that lie beside the inputs are joined too.

    Args:
        paths: At least one store. Files of other programs may be joined among themselves.
        out: The store to write.
        overwrite: Replace it if it exists.
        partial: Join shards although others of the same run (``NAME.shard-2-of-4.h5``) are not
            among the inputs, or were planned over other videos. A shard without a store, whose
            report says that none of its videos has features, does not count as missing.
        link: Write links to the inputs, which have to lie in the folder of ``out`` or below and to
            stay there, instead of their rows. Rows are not compared with their checksums then.

    Raises:
        UsageError: If links cannot lead to an input.
        StoreMismatchError: If settings or widths differ; each difference is named.
        StoreError: If two stores have a video in common, an input cannot be read, a shard is
            missing or was planned otherwise than the others, or the output exists.
        StoreLockedError: If a run is writing the output.
    """
    inputs, out = [Path(path) for path in paths], Path(out)
    if not inputs:
        raise StoreError("There is nothing to merge.", remedy="Give at least one store.")
    _require_free(out, overwrite)
    for path in inputs:
        # A store that cannot be opened is reported before anything else.
        open_store(path).close()
    empty, missing = other_shards(inputs)
    if missing and not partial:
        verb = "is" if len(missing) == 1 else "are"
        raise StoreError(
            f"{', '.join(map(str, missing))} {verb} missing: the other file names say "
            "that there are more shards.",
            remedy="Finish those shards and merge all of them; --partial merges what there is.",
            missing=[str(path) for path in missing],
        )
    differing = differing_plans([*inputs, *empty])
    if differing and not partial:
        raise StoreError(
            " ".join(differing),
            remedy="Run all shards again with one list of videos, which computes what is missing; "
            "--partial merges what there is.",
            differing=differing,
        )
    metadata, n_videos, n_rows, dim = _check(inputs)
    # A run that writes the same store would adopt what it finds there when it ends.
    with one_writer(out):
        _require_free(out, overwrite)
        remove_leftovers(out)
        remove_leftovers(report_path(out))
        if link:
            write_links(out, inputs, metadata)
        else:
            write_store(out, _videos(inputs), metadata)
        n_failed = merge_reports([*inputs, *empty], out)
    return MergeReport(
        *(str(out), [str(path) for path in inputs], n_videos, n_rows, dim, n_failed),
        missing_shards=[str(path) for path in missing],
        differing_plans=differing,
    )


def _require_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise StoreError(
            f"{out} exists already.", remedy="Give another --out, or --overwrite.", path=out
        )


def _check(paths: Sequence[Path]) -> tuple[StoreMetadata, list[int], int, int]:
    """Check that the stores may become one; (metadata, videos of each, rows in all, width)."""
    with StoreSet(paths) as stores:
        metadata = stores.metadata
        unknown = [store.path for store in stores.stores if not store.metadata.settings]
        if unknown and metadata.settings:
            raise StoreMismatchError(
                f"{unknown[0]} does not state how it was made, but others do.",
                remedy="Merge such stores among themselves; `tsp export` joins any.",
                path=unknown[0],
            )
        # What was shared out is one again.
        merged = replace(metadata, shard_plan=None)
        return merged, [len(store) for store in stores.stores], stores.n_rows, stores.dim


def _videos(paths: Sequence[Path]) -> Iterator[tuple[str, h5py.Dataset, Mapping[str, Any]]]:
    for path in paths:
        yield from iter_store(path)


def _shard_of(path: Path) -> tuple[_Run, int] | None:
    """The run that a store is a shard of, judging by its name, and which shard it is."""
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
    """Whether a shard ran and left no store because none of its videos has features."""
    if path.exists():
        return False
    report = read_report(path)
    return report is not None and not any(v["status"] in _IN_STORE for v in report["videos"])


def differing_plans(paths: Sequence[Path]) -> list[str]:
    """Where the shards of one run do not come from one plan, one line per run.

    Args:
        paths: Stores, and shards that left only a report.
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
    """Join the reports of the runs; remove a stale one if there are none.

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
    with replacing(target) as aside:
        aside.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return counts.get("failed", 0)


def write_links(out: Path, stores: Sequence[Path], metadata: StoreMetadata) -> None:
    """Write a store of links to the videos of others, which were checked to fit.

    Args:
        out: The file.
        stores: In its folder or below; they have to stay where they are, as seen from ``out``.
        metadata: What the file says of itself.

    Raises:
        UsageError: If a store lies elsewhere, or holds links itself.
        StoreError: If the folder cannot be written.
    """
    names = [_relative(path, out) for path in stores]
    with new_store(out, metadata.to_hdf5(linked_stores=len(stores))) as links:
        for path, name in zip(stores, names, strict=True):
            with open_store(path) as store:
                if store.is_linked:
                    raise UsageError(
                        f"{path} holds links itself.",
                        remedy="Name the stores that it leads to.",
                        path=path,
                    )
                for key in store:
                    links.link(key, name)


def _relative(path: Path, out: Path) -> str:
    name = os.path.relpath(path, out.parent)
    if PurePath(name).parts[0] == os.pardir or path.absolute() == out.absolute():
        raise UsageError(
            f"{path} is not in the folder of {out} or below.",
            remedy="Write the links next to the stores, or drop --link.",
            path=path,
        )
    return name
