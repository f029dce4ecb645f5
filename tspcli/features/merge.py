"""Joining stores, or the shards of one run, into one store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py

from tspcli.errors import StoreError, StoreMismatchError
from tspcli.features.atomic import remove_leftovers
from tspcli.features.links import write_links
from tspcli.features.lock import lock_store
from tspcli.features.metadata import StoreMetadata
from tspcli.features.parts import iter_store
from tspcli.features.reports import report_path
from tspcli.features.shards import differing_plans, merge_reports, other_shards
from tspcli.features.store import open_store
from tspcli.features.storing import write_store


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
        differing_plans: In what the shards of one run do not fit each other, which ``partial``
            allows.
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
    """Join stores into one, written aside and renamed into place.

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
        # What cannot be opened is told before anything else.
        open_store(path).close()
    empty, missing = other_shards(inputs)
    if missing and not partial:
        verb = "is" if len(missing) == 1 else "are"
        raise StoreError(
            f"{', '.join(map(str, missing))} {verb} missing: the names of the others tell of more "
            "shards.",
            remedy="Finish those shards and merge all of them; --partial merges what there is.",
        )
    differing = differing_plans([*inputs, *empty])
    if differing and not partial:
        raise StoreError(
            " ".join(differing),
            remedy="Run all shards again with one list of videos, which computes what is missing; "
            "--partial merges what there is.",
        )
    metadata, n_videos, n_rows, dim = _check(inputs)
    # A run that writes the same store would take over what it finds there when it ends.
    with lock_store(out):
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
        raise StoreError(f"{out} exists already.", remedy="Give another --out, or --overwrite.")


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
    # What was shared out is one again.
    return replace(first, shard_plan=None), n_videos, n_rows, width[0] if width else 0


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
