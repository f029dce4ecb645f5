"""Renaming and removing videos of a store, which is written anew and renamed into place.

Rows are compared with their checksums on the way, as in merging.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, UsageError
from tspcli.store.chunks import Rows
from tspcli.store.gvf import is_gvf, read_gvf, write_gvf
from tspcli.store.parts import iter_store
from tspcli.store.store import open_store
from tspcli.store.store_set import find_key
from tspcli.store.store_writer import is_key, write_store


def rename_video(path: str | Path, name: str, new: str) -> str:
    """Give a video of a store, or of a file of global features, another key.

    Its rows and attributes stay as they are, among them the name of the file that they were
    computed from.

    Args:
        path: The file.
        name: The video, with or without ``v_``.
        new: Its new key.

    Returns:
        The key that it had.

    Raises:
        UsageError: If there is no such video, or another one has the new key.
        StoreError: If the file cannot be read, or is not one that this program wrote.
        StoreLockedError: If a run is writing it, or another program has it open for writing.
    """
    path = Path(path)
    if not is_key(new):
        raise UsageError(f"{new!r} cannot name a video in a store.", value=new)
    with one_writer(path):
        keys = _keys(path)
        old = find_key(keys, name, path)
        if new != old and new in keys:
            raise UsageError(f"{path} has a video {new!r} already.", path=path, value=new)
        _rewrite(path, {key: new if key == old else key for key in keys})
    return old


def remove_videos(path: str | Path, names: Collection[str]) -> list[str]:
    """Remove videos from a store, or from a file of global features.

    Args:
        path: The file.
        names: The videos, with or without ``v_``.

    Returns:
        Their keys.

    Raises:
        UsageError: If there is no such video.
        StoreError: As :func:`rename_video`.
        StoreLockedError: As there.
    """
    path = Path(path)
    with one_writer(path):
        keys = _keys(path)
        removed = list(dict.fromkeys(find_key(keys, name, path) for name in names))
        _rewrite(path, {key: key for key in keys if key not in removed})
    return removed


def _keys(path: Path) -> dict[str, None]:
    with open_store(path) as store:
        if store.is_linked:
            raise StoreError(
                f"{path} holds links.",
                remedy="Change the stores that it leads to, then write it again with `tsp merge "
                "--link`.",
                path=path,
            )
        if "format" not in store.file_attributes:
            raise StoreError(
                f"{path} is a file of another program.",
                remedy='In h5py: `file.move("OLD", "NEW")` renames, `del file["NAME"]` removes.',
                path=path,
            )
        return dict.fromkeys(store)


def _rewrite(path: Path, names: Mapping[str, str]) -> None:
    """Write a file anew with some of its videos.

    Args:
        path: The file.
        names: New key by old one, of the videos to keep.
    """
    if is_gvf(path):
        found = read_gvf(path)
        assert found.pool is not None
        write_gvf(
            path,
            {new: found.vectors[old] for old, new in names.items()},
            pool=found.pool,
            metadata=found.metadata,
            attributes={new: found.attributes[old] for old, new in names.items()},
        )
        return
    with open_store(path) as store:
        metadata = store.metadata

    def videos() -> Iterator[tuple[str, Rows, Mapping[str, Any]]]:
        for key, dataset, attributes in iter_store(path):
            if key in names:
                yield names[key], dataset, attributes

    write_store(path, videos(), metadata)
