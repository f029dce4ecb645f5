"""A store that holds no rows but leads to those of other stores, where copying them takes too long.

Every entry is an HDF5 link that any HDF5 program follows. The links are relative, and lead nowhere
but into the folder of the file that holds them: a file from elsewhere cannot point at others'.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import h5py

from tspcli.errors import StoreError, UsageError
from tspcli.features.atomic import require_room, write_aside
from tspcli.features.metadata import StoreMetadata
from tspcli.features.store import LINKED_ATTRIBUTE, open_store
from tspcli.features.storing import is_key, plain
from tspcli.features.trailer import append_trailer


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
    attributes = {**metadata.to_attributes(), LINKED_ATTRIBUTE: len(stores)}
    n_links = 0
    with write_aside(out) as aside:
        require_room(aside, 0, 0)
        with h5py.File(aside, "w") as file:
            file.attrs.update(attributes)
            for path, name in zip(stores, names, strict=True):
                with open_store(path) as store:
                    if store.is_linked:
                        raise UsageError(
                            f"{path} holds links itself.",
                            remedy="Name the stores that it leads to.",
                        )
                    for key in store:
                        if not is_key(key):
                            raise StoreError(f"{key!r} in {path} cannot name a video.")
                        n_links += 1
                        require_room(aside, 0, n_links)
                        file[key] = h5py.ExternalLink(name, f"/{key}")
        append_trailer(aside, {name: plain(value) for name, value in attributes.items()}, {})


def _relative(path: Path, out: Path) -> str:
    name = os.path.relpath(path, out.parent)
    if PurePath(name).parts[0] == os.pardir or path.absolute() == out.absolute():
        raise UsageError(
            f"{path} is not in the folder of {out} or below.",
            remedy="Links lead nowhere else. Write them beside the stores, or leave out --link.",
        )
    return name
