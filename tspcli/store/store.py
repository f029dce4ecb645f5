"""Reading a store: the one HDF5 file that everything else takes its rows from.

The layout is that of the official released features: one dataset per video at the root, named after
the video, shape (N, D), float32, rows in time order, and no other root entry. Everything else is in
attributes (:mod:`tspcli.store.schema`) and in the index behind the HDF5 file
(:mod:`tspcli.store.index`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.core.run_dir import writer_of
from tspcli.core.text import counted
from tspcli.errors import StoreError
from tspcli.sampling import Sampling
from tspcli.store.foreign import require_rows, require_vector
from tspcli.store.hdf5_file import LAYOUT, open_hdf5, require_closed
from tspcli.store.hdf5_values import plain_attributes
from tspcli.store.index import Index, damaged_file, explain_read_errors, read_index
from tspcli.store.schema import StoreMetadata
from tspcli.store.store_writer import content_checksum
from tspcli.store.video_features import VideoFeatures


class FeatureStore(Mapping[str, VideoFeatures]):
    """A store opened for reading: a mapping from a video's key to its features.

    Attributes:
        path: The file.
        file_attributes: Those of the file, as plain values.
        metadata: The file's provenance.
        damage: Why the file as a whole is not the one that was written, in words; always empty
            unless it was opened to save what is intact.
        is_linked: Whether the rows are in other stores (`tsp merge --link`).
    """

    def __init__(
        self, path: str | Path, *, sampling: Sampling | None = None, salvage: bool = False
    ) -> None:
        """Open a store; see :func:`open_store`.

        Args:
            path: The file.
            sampling: The sampling of videos for which the file states none.
            salvage: Open a damaged file too, as far as HDF5 reads it.
        """
        self.path = Path(path)
        self.damage: list[str] = []
        self._fallback = sampling
        self._index: Index | None = None
        self._opened = ExitStack()
        self._targets: dict[str, FeatureStore] = {}
        _require_file(self.path)
        try:
            self._index = read_index(self.path)
        except StoreError as error:
            # What another program is changing is not damaged.
            require_closed(self.path)
            if not salvage:
                raise
            self.damage.append(error.message)
        self._file = self._opened.enter_context(open_hdf5(self.path))
        try:
            with explain_read_errors(self.path, "the attributes"):
                self.file_attributes = plain_attributes(self._file)
            if self._index is not None:
                self.damage += self._index.differences(self.file_attributes, self)
                if self.damage and not salvage:
                    raise damaged_file(self.path, "; ".join(self.damage))
                self.file_attributes = dict(self._index.attributes)
            self.metadata = StoreMetadata.from_hdf5(self.file_attributes, str(path))
        except BaseException:
            self.close()
            raise
        self.is_linked = "linked_stores" in self.file_attributes

    @property
    def is_indexed(self) -> bool:
        """Whether the file has an index, so that everything in it can be checked."""
        return self._index is not None

    def __getitem__(self, key: str) -> VideoFeatures:
        if key not in self:
            raise KeyError(key)
        if self.is_linked and self._is_external(key):
            return self._linked(key, self._file.get(key, getlink=True))
        item = self._own_entry(key)
        require_rows(item, key, self.path)
        return VideoFeatures(
            key,
            item,
            str(self.path),
            sampling=self.metadata.sampling,
            fallback=self._fallback,
            indexed_checksum=self._indexed_checksum(key),
        )

    def __iter__(self) -> Iterator[str]:
        with explain_read_errors(self.path, "the list of videos"):
            keys = list(self._file)
        return iter(keys)

    def __len__(self) -> int:
        with explain_read_errors(self.path, "the list of videos"):
            return len(self._file)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or key in ("", ".") or "/" in key or "\0" in key:
            return False
        with explain_read_errors(self.path, f"the entry {key!r}", key):
            # Of the link alone: what it leads to may be damaged, and then is not missing.
            return bool(self._file.id.links.exists(key.encode("utf-8", "surrogateescape")))

    @property
    def own_sampling(self) -> Sampling | None:
        """How videos were cut into clips, as the file states it for all or for its first one."""
        if self.metadata.sampling is not None:
            return self.metadata.sampling
        first = next(iter(self), None)
        return None if first is None else self[first].own_sampling

    @property
    def indexed_keys(self) -> list[str]:
        """The videos that the index lists, whether or not they can be read."""
        return [] if self._index is None else sorted(self._index.videos)

    def is_vector(self, key: str) -> bool:
        """Whether an entry is one vector, as in files of global features."""
        if self._is_external(key):
            return False
        item = self._own_entry(key)
        return isinstance(item, h5py.Dataset) and item.ndim == 1

    def read_vector(self, key: str) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """One vector of a file of global features, shape (D,), and its attributes as plain values.

        Raises:
            StoreError: If the entry is not one, or not as it was written.
        """
        item = self._own_entry(key)
        with explain_read_errors(self.path, f"the entry {key!r}", key):
            attributes = plain_attributes(item)
            require_vector(item, key, self.path)
            vector = np.asarray(item[()], dtype=np.float32)
            indexed = self._indexed_checksum(key)
            if indexed is not None and indexed != content_checksum(vector, attributes):
                raise ValueError("its checksum differs")
        return vector, attributes

    def close(self) -> None:
        """Close the file; rows not read yet can no longer be."""
        self._opened.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _indexed_checksum(self, key: str) -> str | None:
        return None if self._index is None else self._index.videos.get(key)

    def _is_external(self, key: str) -> bool:
        """Whether an entry is a link to another file."""
        name = key.encode("utf-8", "surrogateescape")
        with explain_read_errors(self.path, f"the entry {key!r}", key):
            return bool(self._file.id.links.get_info(name).type == h5py.h5l.TYPE_EXTERNAL)

    def _own_entry(self, key: str) -> Any:
        """What this file itself holds under a name."""
        external = self._is_external(key)
        with explain_read_errors(self.path, f"the entry {key!r}", key):
            if external:
                raise ValueError("it is a link to another file")
            item = self._file[key]
            if isinstance(item, h5py.Dataset):
                properties = item.id.get_create_plist()
                if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
                    raise ValueError("its rows are in another file")
        return item

    def _linked(self, key: str, link: h5py.ExternalLink) -> VideoFeatures:
        """A video of another store, which has to be in this one's folder and of its settings."""
        name = str(link.filename)
        if self._index is not None and self._index.videos.get(key) != name:
            raise damaged_file(self.path, f"the link {key!r} is not the one that was written")
        with explain_read_errors(self.path, f"the entry {key!r}", key):
            if PurePath(name).is_absolute() or os.pardir in PurePath(name).parts:
                raise ValueError("it is a link out of the folder")
        if name not in self._targets:
            self._targets[name] = self._opened.enter_context(self._open_target(name))
        with explain_read_errors(self.path, f"the entry {key!r}", key):
            return self._targets[name][str(link.path).removeprefix("/")]

    def _open_target(self, name: str) -> FeatureStore:
        target = self.path.parent / name
        if not target.exists():
            raise StoreError(
                f"{self.path} leads to {target}, which does not exist.",
                remedy="Put that store back, or write the links again with `tsp merge --link`.",
                path=target,
            )
        store = FeatureStore(target, sampling=self._fallback)
        try:
            if store.is_linked:
                raise StoreError(
                    f"{self.path} leads to {target}, which is a store of links itself.",
                    remedy="Write the links again with `tsp merge --link`.",
                    path=target,
                )
            self.metadata.require_same(store.metadata, str(self.path), str(target))
        except BaseException:
            store.close()
            raise
        return store


def open_store(path: str | Path, *, sampling: Sampling | None = None) -> FeatureStore:
    """Open a feature store, ours or any file in the official layout, for reading.

    Args:
        path: The HDF5 file.
        sampling: The times of rows in files that do not state them. Those that do keep their own;
            :mod:`tspcli.store.store_set` reports whether they agree.

    Raises:
        StoreError: If there is no such file, it is not an HDF5 file, or it is damaged.

    Example:
        >>> with open_store("feats.h5") as store:                        # doctest: +SKIP
        ...     video = store["v_sJFgo9H6zNo"]
        ...     video.rows.shape, video.center_s[:2]
        ((130, 512), array([0.533, 1.6  ]))
    """
    return FeatureStore(path, sampling=sampling)


def parts_folder(path: str | Path) -> Path:
    """The folder in which the finished videos of a store wait to be assembled."""
    path = Path(path)
    return path.with_name(path.name + ".parts")


def _require_file(path: Path) -> None:
    parts = parts_folder(path)
    if path.is_dir():
        raise StoreError(
            f"{path} is a folder, not an HDF5 file.", remedy=LAYOUT, path=path, kind="not-hdf5"
        )
    if path.exists():
        return
    if parts.is_dir():
        finished = counted(sum(1 for _ in parts.glob("*.part")), "finished video")
        writer = writer_of(path)
        raise StoreError(
            f"{path} is not assembled yet: {finished} in {parts}."
            + (f" A run is writing it ({writer})." if writer else ""),
            remedy="Wait until that run has ended."
            if writer
            else "Run the `tsp extract` command again: it resumes where it stopped.",
            path=path,
            kind="not-assembled",
            writer=writer,
        )
    raise StoreError(f"{path} does not exist.", path=path)
