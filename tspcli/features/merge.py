"""Joining stores, or the shards of one run, into one store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from tspcli.errors import StoreError, StoreMismatchError
from tspcli.features.atomic import write_aside
from tspcli.features.metadata import StoreMetadata
from tspcli.features.parts import iter_store
from tspcli.features.store import open_store
from tspcli.features.storing import write_store
from tspcli.parsing import MALFORMED, parse_json

_SHARD = re.compile(r"(?P<name>.+)\.shard-(?P<index>\d+)-of-(?P<count>\d+)(?P<suffix>.*)")
"""The names that `tsp extract --shard` gives."""

_IN_STORE = ("done", "kept")


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote.

    Attributes:
        out: The store.
        stores: The inputs.
        n_videos: Videos of each input.
        n_rows: Rows in all.
        dim: Width of a row.
        n_failed: Videos that failed in the runs that made the inputs, by their reports.
        missing_shards: Shards of the inputs' runs that were not given, which ``partial`` allows.
    """

    out: str
    stores: list[str]
    n_videos: list[int]
    n_rows: int
    dim: int
    n_failed: int = 0
    missing_shards: list[str] = field(default_factory=list)


def merge_stores(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    partial: bool = False,
) -> MergeReport:
    """Join stores into one, written aside and renamed into place.

    Rows and attributes are taken over as they are, in constant memory. The reports of the runs
    that lie beside the inputs are joined too.

    Args:
        paths: At least one store. Files of other programs may be joined among themselves.
        out: The store to write.
        overwrite: Replace it if it exists.
        partial: Join shards although others of the same run (``NAME.shard-2-of-4.h5``) are not
            among the inputs. A shard without a store, whose report says that none of its videos
            has features, does not count as missing.

    Raises:
        StoreMismatchError: If settings or widths differ; each difference is named.
        StoreError: If two stores have a video in common, an input cannot be read, a shard is
            missing, or the output exists.
    """
    inputs, out = [Path(path) for path in paths], Path(out)
    if not inputs:
        raise StoreError("There is nothing to merge.", remedy="Give at least one store.")
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists already.", remedy="Give another --out, or --overwrite.")
    for path in inputs:
        # What cannot be opened is told before anything else.
        open_store(path).close()
    empty, missing = _other_shards(inputs)
    if missing and not partial:
        verb = "is" if len(missing) == 1 else "are"
        raise StoreError(
            f"{', '.join(map(str, missing))} {verb} missing: the names of the others tell of more "
            "shards.",
            remedy="Finish those shards and merge all of them; --partial merges what there is.",
        )
    metadata, n_videos, n_rows, dim = _check(inputs)
    write_store(out, _videos(inputs), metadata)
    n_failed = _merge_reports([*inputs, *empty], out)
    return MergeReport(
        *(str(out), [str(path) for path in inputs], n_videos, n_rows, dim, n_failed),
        missing_shards=[str(path) for path in missing],
    )


def _other_shards(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The shards of the same runs that are not given: (those without any features, missing)."""
    runs: dict[tuple[Path, str, str, int], set[int]] = {}
    for path in paths:
        if match := _SHARD.fullmatch(path.name):
            run = path.parent, match["name"], match["suffix"], int(match["count"])
            runs.setdefault(run, set()).add(int(match["index"]))
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
    report = _read_report(path)
    return report is not None and not any(v["status"] in _IN_STORE for v in report["videos"])


def _check(paths: Sequence[Path]) -> tuple[StoreMetadata, list[int], int, int]:
    """Check that the stores may become one; (metadata, videos of each, rows in all, width)."""
    holders: dict[str, Path] = {}
    n_videos, n_rows = [], 0
    first: StoreMetadata | None = None
    width: tuple[int, str] | None = None
    for path in paths:
        with open_store(path) as store:
            if first is None:
                first = store.metadata
            _require_same(first, store.metadata, paths[0], path)
            for key in store:
                if key in holders:
                    raise StoreError(
                        f"{key!r} is in {holders[key]} and in {path}.",
                        remedy="Give each video once.",
                    )
                holders[key] = path
                video = store[key]
                n_rows += video.n_rows
                if width is None:
                    width = video.dim, f"{key!r} in {path}"
                if video.dim != width[0]:
                    raise StoreMismatchError(
                        f"{key!r} in {path} has width {video.dim}, {width[1]} has {width[0]}.",
                        remedy="Merge features of one encoder.",
                    )
            n_videos.append(len(store))
    assert first is not None
    return first, n_videos, n_rows, width[0] if width else 0


def _require_same(this: StoreMetadata, that: StoreMetadata, path: Path, other: Path) -> None:
    if bool(this.settings) != bool(that.settings):
        known, unknown = (path, other) if this.settings else (other, path)
        raise StoreMismatchError(
            f"{unknown} does not say how it was made, {known} does.",
            remedy="Merge stores that say it with such stores only; `tsp export` joins any.",
        )
    differences = that.differences(this)
    if differences:
        raise StoreMismatchError(
            f"{other} was made with other settings than {path}: " + "; ".join(differences) + ".",
            remedy="Only stores of one encoder and one sampling can be merged.",
        )


def _videos(paths: Sequence[Path]) -> Iterator[tuple[str, h5py.Dataset, Mapping[str, Any]]]:
    for path in paths:
        yield from iter_store(path)


def _merge_reports(paths: Sequence[Path], out: Path) -> int:
    """Join the runs' reports, so that failures stay known; leave no stale one behind.

    Returns:
        How many videos failed.
    """
    target = _report_path(out)
    videos: list[Any] = []
    settings: Any = {}
    for path in paths:
        report = _read_report(path)
        if report is not None:
            videos += report["videos"]
            settings = report.get("settings", settings)
    if not videos:
        target.unlink(missing_ok=True)
        return 0
    counts: dict[str, int] = {}
    for video in videos:
        counts[video["status"]] = counts.get(video["status"], 0) + 1
    merged = {
        "out": str(out),
        "settings": settings,
        "merged_from": [str(path) for path in paths],
        "counts": counts,
        "videos": videos,
    }
    with write_aside(target) as aside:
        aside.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return counts.get("failed", 0)


def _read_report(store: Path) -> dict[str, Any] | None:
    """The report of the run that made a store, or None if it left none."""
    path = _report_path(store)
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
        for video in report["videos"]:
            video["status"]
    except FileNotFoundError:
        return None
    except MALFORMED as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            remedy="Delete it and merge again.",
        ) from error
    return dict(report)


def _report_path(store: Path) -> Path:
    return store.with_name(store.name + ".report.json")
