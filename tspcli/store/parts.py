"""One file per finished video: what makes a run resumable, shardable and safe to kill.

During a run each video's rows are appended to a file of its own, written aside, which is synced
and renamed into the store's ``.parts`` folder once the video is complete. At the end all parts
become the one HDF5 file, written aside and renamed in the same way. A killed run thus leaves
complete videos and nothing else that counts, and any number of writers can share one folder.

A part is not HDF5: its rows can be appended without knowing their number, in constant memory, and
a full disk is one refused ``write``. It is a sealed file (:mod:`tspcli.core.sealed_file`) whose
content is the rows, little-endian float32.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.core.files import explain_write_errors, remove_leftovers, replacing
from tspcli.core.run_dir import report_path
from tspcli.core.sealed_file import SealedWriter, read_footer
from tspcli.core.text import MALFORMED, counted, parse_json
from tspcli.errors import StoreError
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import FeatureStore, open_store, parts_folder
from tspcli.store.store_writer import (
    DamagedRowsError,
    content_checksum,
    is_key,
    new_store,
    seal_checksum,
)
from tspcli.store.video_features import VideoFeatures

_MAGIC = b"TSPPART1"
_SETTINGS = "settings.json"
_DISCARDED = "discarded_older_parts"


@dataclass(frozen=True)
class Part:
    """A finished video that waits to be assembled.

    Attributes:
        path: The part's file.
        key: The video's key.
        n_rows: Rows (clips).
        dim: Width of a row.
        attributes: The attributes of its dataset, checksum included.
        settings_digest: Digest of the settings that made it.
    """

    path: Path
    key: str
    n_rows: int
    dim: int
    attributes: Mapping[str, Any]
    settings_digest: str

    @property
    def n_bytes(self) -> int:
        """Size of the rows."""
        return self.n_rows * self.dim * 4

    def rows(self) -> npt.NDArray[np.float32]:
        """The rows, shape (n_rows, dim), mapped from the file."""
        if self.n_rows == 0:
            return np.zeros((0, self.dim), dtype="<f4")
        return np.memmap(self.path, dtype="<f4", mode="r", shape=(self.n_rows, self.dim))

    def require_intact(self) -> None:
        """Compare rows and attributes with the checksum; a part that is damaged is removed.

        Raises:
            StoreError: If it is.
        """
        if content_checksum(self.rows(), self.attributes) != self.attributes.get("checksum"):
            raise self.removed_as_damaged()

    def removed_as_damaged(self) -> StoreError:
        """Remove it, so that its video is computed again; return the error that reports it."""
        self.path.unlink()
        return StoreError(
            f"{self.path} is damaged: its checksum differs.",
            remedy=f"Give the same command again: it computes {self.key!r} anew.",
            path=self.path,
            value=self.key,
        )


class PartWriter:
    """Appends one video's rows to a file aside and puts it among the parts once it is complete."""

    def __init__(self, folder: Path, key: str, dim: int, settings_digest: str) -> None:
        self._file = SealedWriter(folder / part_name(key), _MAGIC)
        self._key = key
        self._dim = dim
        self._settings_digest = settings_digest
        self._digest = hashlib.sha256()
        self.n_rows = 0

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Append rows of shape (n, dim).

        Raises:
            StoreError: If the disk is full; the part is gone then.
        """
        if rows.ndim != 2 or rows.shape[1] != self._dim:
            raise ValueError(f"expected rows of width {self._dim}, got shape {rows.shape}")
        data = np.ascontiguousarray(rows, dtype="<f4").data.cast("B")
        self._file.write(data)
        self._digest.update(data)
        self.n_rows += rows.shape[0]

    def commit(self, attributes: Mapping[str, Any]) -> Part:
        """Finish the part: from here on neither a kill nor a power cut can damage it.

        Args:
            attributes: Plain values for the dataset; a checksum over rows and values is added.
        """
        attributes = dict(attributes)
        attributes["checksum"] = seal_checksum(self._digest, attributes)
        self._file.commit(
            {
                "key": self._key,
                "n_rows": self.n_rows,
                "dim": self._dim,
                "attributes": attributes,
                "settings_digest": self._settings_digest,
            }
        )
        return Part(
            self._file.path, self._key, self.n_rows, self._dim, attributes, self._settings_digest
        )

    def abort(self) -> None:
        """Discard the rows written so far."""
        self._file.abort()


def part_name(key: str) -> str:
    """The file name of a key's part; a digest, so that any key makes a short and safe name."""
    return (
        hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        + ".part"
    )


def read_part(path: Path) -> Part:
    """Read a part's footer.

    Raises:
        StoreError: If the file is not a complete part.
    """
    try:
        with open(path, "rb") as file:
            found = read_footer(file.fileno(), _MAGIC)
        if found is None:
            raise ValueError("it does not end as a part does")
        footer, n_bytes = found
        part = Part(
            path,
            str(footer["key"]),
            int(footer["n_rows"]),
            int(footer["dim"]),
            dict(footer["attributes"]),
            str(footer["settings_digest"]),
        )
        if part.n_rows < 0 or part.dim < 1 or n_bytes != part.n_bytes:
            raise ValueError("its length does not fit its rows")
        if not is_key(part.key) or path.name != part_name(part.key):
            raise ValueError("its name does not fit its key")
        return part
    except MALFORMED as error:
        raise StoreError(
            f"{path} is not a finished part of a feature store ({error}).",
            remedy="Delete it; the next run computes that video again.",
            path=path,
        ) from error


class PartsFolder:
    """The ``.parts`` folder beside a store, for the one run that holds the store's lock."""

    def __init__(self, store: Path, metadata: StoreMetadata) -> None:
        self.store = store
        self.metadata = metadata
        self.folder = parts_folder(store)
        self.parts: dict[str, Part] = {}
        self.discarded: list[str] = []

    def open(self, *, discard: bool = False) -> None:
        """Create the folder, or take over what an earlier run left in it.

        Args:
            discard: Throw away finished videos too, unless the run that left them did the same and
                was this very run, which now resumes.

        Raises:
            StoreMismatchError: If the parts were made with other settings.
        """
        with explain_write_errors(self.folder, resumable=True):
            self.folder.mkdir(parents=True, exist_ok=True)
            for aside in self.folder.glob(".*.tmp"):
                aside.unlink()
            remove_leftovers(self.store)
            remove_leftovers(report_path(self.store))
            if discard and not self._goes_on():
                self._remove_parts()
            self._check_settings(discard)
        for path in sorted(self.folder.glob("*.part")):
            try:
                part = read_part(path)
                if part.settings_digest != self.metadata.settings_digest:
                    raise StoreError(f"{path} was made with other settings.")
            except StoreError as error:
                self.discarded.append(str(error))
                path.unlink()
            else:
                self.parts[part.key] = part

    def writer(self, key: str, dim: int) -> PartWriter:
        """Start a video."""
        return PartWriter(self.folder, key, dim, self.metadata.settings_digest)

    def add(self, part: Part) -> None:
        """Count a committed part among those to assemble."""
        self.parts[part.key] = part

    def take(self, key: str) -> None:
        """Count a part that another process has committed.

        Raises:
            StoreError: If it does not exist, or is of another run with other settings.
        """
        path = self.folder / part_name(key)
        part = read_part(path)
        if part.settings_digest != self.metadata.settings_digest:
            raise StoreError(
                f"{path} was made with other settings.",
                remedy="See that no other run writes there, and give the same command again.",
                path=path,
            )
        self.add(part)

    def assemble(self, *, keep_existing: bool = True) -> int:
        """Write the store from what it holds already and all parts, then remove the parts.

        Args:
            keep_existing: Take over the videos of the store that is there now.

        Returns:
            The number of videos in the store.

        Raises:
            StoreError: If the disk is full; the parts and the old store stay as they were.
            StoreMismatchError: If the store that is there was made with other settings; likewise.
        """
        attributes = self.metadata.to_hdf5()
        with new_store(self.store, attributes, resumable=True) as store, ExitStack() as opened:
            existing: Mapping[str, VideoFeatures] = {}
            if keep_existing and self.store.exists():
                found = opened.enter_context(self._open_existing())
                # Another program may have put another store there since the run began.
                found.metadata.require_same(self.metadata, "this run", str(self.store))
                existing = found
            # Sorted, so that the file is the same whatever the history of the run.
            for key in sorted({*existing, *self.parts}):
                part = self.parts.get(key)
                if part is None:
                    store.add(key, existing[key].dataset, existing[key].attrs)
                    continue
                try:
                    store.add(key, part.rows(), part.attributes)
                except DamagedRowsError as error:
                    raise part.removed_as_damaged() from error
        count = len(store.videos)
        self.remove()
        return count

    def _open_existing(self) -> FeatureStore:
        try:
            return open_store(self.store)
        except StoreError as error:
            finished = counted(len(self.parts), "finished video")
            error.message += f" {finished} of this run wait in {self.folder}."
            raise

    def remove(self) -> None:
        """Remove the parts and their folder."""
        self._remove_parts()
        with suppress(OSError):
            # What a process of the run had begun when it was killed.
            for aside in self.folder.glob(".*.tmp"):
                aside.unlink()
            (self.folder / _SETTINGS).unlink(missing_ok=True)
            self.folder.rmdir()

    def _goes_on(self) -> bool:
        """Whether the parts are those of a run like this one that was to discard older ones."""
        try:
            left = parse_json((self.folder / _SETTINGS).read_bytes())
            return bool(left[_DISCARDED]) and left == self._about(True)
        except MALFORMED:
            return False

    def _about(self, discarded: bool) -> dict[str, Any]:
        return {**self.metadata.to_hdf5(), _DISCARDED: discarded}

    def _check_settings(self, discarded: bool) -> None:
        """Keep the settings in the folder, so that a difference can be named and not only seen."""
        path = self.folder / _SETTINGS
        if path.exists() and any(self.folder.glob("*.part")):
            try:
                stored = StoreMetadata.from_hdf5(json.loads(path.read_text()), str(path))
            except (ValueError, StoreError):
                stored = None
            if stored is not None:
                stored.require_same(self.metadata, "this run", str(self.folder))
        with replacing(path, resumable=True) as aside:
            aside.write_text(json.dumps(self._about(discarded), indent=1))

    def _remove_parts(self) -> None:
        for path in self.folder.glob("*.part"):
            path.unlink()


def iter_store(path: Path) -> Iterator[tuple[str, h5py.Dataset, dict[str, Any]]]:
    """(key, dataset, attributes) of each video of a store, one at a time.

    Raises:
        StoreError: If the store or a video cannot be read, or a video is of an older version.
    """
    with open_store(path) as store:
        for key in store:
            video = store[key]
            video.require_indexed()
            yield key, video.dataset, video.attrs
