"""Which videos a run has to do, and which of them this shard does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tspcli.errors import UsageError
from tspcli.video import VideoFile


def shard_path(out: Path, shard: tuple[int, int]) -> Path:
    """The store of one shard: ``feats.shard-2-of-8.h5`` for shard 2/8 of ``feats.h5``."""
    return out.with_name(f"{out.stem}.shard-{shard[0]}-of-{shard[1]}{out.suffix}")


def select_shard(videos: Sequence[VideoFile], shard: tuple[int, int]) -> list[VideoFile]:
    """The videos of one shard.

    The largest video goes to the emptiest shard, then the next, so that shards take about equally
    long; the order in which the videos were named makes no difference.

    Args:
        videos: All videos.
        shard: (i, n), the i-th of n, counted from 1.
    """
    index, count = shard
    loads = [(0, number) for number in range(count)]
    chosen: list[VideoFile] = []
    for size, video in sorted(
        ((file_size(video.path), video) for video in videos),
        key=lambda pair: (-pair[0], pair[1].key),
    ):
        load, number = min(loads)
        loads[number] = (load + size, number)
        if number == index - 1:
            chosen.append(video)
    return chosen


def check_out(out: Path) -> None:
    """Refuse an output that cannot be a store, before anything is loaded.

    Raises:
        UsageError: If ``out`` is a folder, or a file that is no HDF5: a video or a list, perhaps,
            that ``--overwrite`` would destroy.
    """
    import h5py

    if out.is_dir():
        raise UsageError(
            f"The output {out} is a folder.", remedy="Name a file, such as --out feats.h5."
        )
    if out.exists() and not h5py.is_hdf5(out):
        raise UsageError(
            f"The output {out} exists and is not an HDF5 file; it stays as it is.",
            remedy="Name another file, such as --out feats.h5, or move this one away.",
        )


def longest_first(videos: Sequence[VideoFile]) -> list[VideoFile]:
    """The order in which a run starts its videos, so that no long one is left for the end.

    Size stands for duration: it is free to read, and the order only has to be good.
    """
    return sorted(videos, key=lambda video: (-file_size(video.path), video.key))


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def file_size(path: str | Path) -> int:
    """Bytes of a file; 0 if it cannot be told, which the decoder will then explain."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
