"""Global video features: one vector a video, pooled over all its clips.

The layout is that of the official files: HDF5, one dataset a video at the root, named after the
video, shape (D,), float32, gzip. Where the vectors come from stands in the file's attributes; the
official files have none, and open all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.core.files import replacing, require_room
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreMismatchError, UsageError
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import entry, open_store, plain_attributes
from tspcli.store.trailer import append_trailer, explain_read_errors, require_intact_frame

Pool = Literal["max", "mean"]
GVF_FORMAT = "tspcli-gvf"
KEPT_ATTRIBUTES = frozenset(
    {"source_bytes", "source_fps", "duration_s", "decoder", "warnings", "pooled_rows"}
)
"""What is worth knowing of a video of which one vector is left."""

_ROWS_AT_ONCE = 16_384


class RunningPool:
    """The maximum or the mean of rows that come in pieces; no row is kept.

    Args:
        pool: ``max``, or ``mean``, which is summed in double precision.
    """

    def __init__(self, pool: Pool) -> None:
        if pool not in get_args(Pool):
            raise UsageError(f"There is no pooling {pool!r}.", remedy="Use max or mean.")
        self.pool = pool
        self.n_rows = 0
        self._value: npt.NDArray[Any] | None = None

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Take the next rows, shape (n, D)."""
        if len(rows) == 0:
            return
        if self.pool == "max":
            piece = rows.max(axis=0)
            self._value = piece if self._value is None else np.maximum(self._value, piece)
        else:
            total = rows.sum(axis=0, dtype=np.float64)
            self._value = total if self._value is None else self._value + total
        self.n_rows += len(rows)

    def result(self) -> npt.NDArray[np.float32]:
        """The pooled vector, shape (D,), float32.

        Raises:
            ValueError: If there was no row.
        """
        if self._value is None:
            raise ValueError("no row was given")
        value = self._value / self.n_rows if self.pool == "mean" else self._value
        return value.astype(np.float32)


@dataclass(frozen=True)
class GlobalFeatures(Mapping[str, npt.NDArray[np.float32]]):
    """The vectors of a file, all in memory (2 KB a video).

    Attributes:
        path: The file.
        vectors: Key to shape (D,), float32.
        pool: How clips became one vector; None for files that do not tell.
        metadata: Encoder and sampling of the clips; empty for files that do not tell.
        attributes: Key to what is known of the video, such as ``source_bytes``.
    """

    path: Path
    vectors: Mapping[str, npt.NDArray[np.float32]]
    pool: Pool | None
    metadata: StoreMetadata
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """D, the width of the vectors."""
        return len(next(iter(self.vectors.values())))

    def __getitem__(self, key: str) -> npt.NDArray[np.float32]:
        return self.vectors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)


def is_gvf(path: str | Path) -> bool:
    """Whether a file holds global features: it says so, or its first entry is one vector."""
    try:
        with h5py.File(path, "r") as file:
            if "format" in file.attrs:
                return bool(plain_attributes(file.attrs)["format"] == GVF_FORMAT)
            first = next(iter(file), None)
            return first is not None and getattr(file[first], "ndim", None) == 1
    except (OSError, RuntimeError, KeyError):
        return False


def read_gvf(path: str | Path) -> GlobalFeatures:
    """Read global video features, ours or an official file.

    Raises:
        StoreError: If the file is none, or its vectors differ in width or are not finite, naming
            the video.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"There is no file {path}.", remedy="Check the path, or run `tsp gvf`.")
    require_intact_frame(path)
    with explain_read_errors(path), h5py.File(path, "r") as file:
        attributes = plain_attributes(file.attrs)
        vectors = {key: _vector(entry(file, key), key, path) for key in file}
        known = {key: plain_attributes(file[key].attrs) for key in file}
    if not vectors:
        raise StoreError(f"{path} holds no video.", remedy="Run `tsp gvf` again.")
    widths = {len(vector): key for key, vector in vectors.items()}
    if len(widths) > 1:
        raise StoreError(
            f"{path} mixes widths: " + ", ".join(f"{w} ({key})" for w, key in widths.items()) + ".",
            remedy="Make it anew with one encoder.",
        )
    if attributes.get("format") != GVF_FORMAT:
        return GlobalFeatures(path, vectors, None, StoreMetadata({}, {}, None), known)
    metadata = StoreMetadata.from_attributes(
        {**attributes, "format": attributes.get("source_format")}, str(path)
    )
    return GlobalFeatures(path, vectors, attributes["pool"], metadata, known)


def _vector(item: Any, key: str, path: Path) -> npt.NDArray[np.float32]:
    if not isinstance(item, h5py.Dataset) or item.ndim != 1:
        shape = getattr(item, "shape", "a group")
        raise StoreError(
            f"{path}: the entry {key!r} is {shape}, not one vector.",
            remedy="A feature store is made into global features by `tsp gvf --features`.",
        )
    vector = np.asarray(item[()], dtype=np.float32)
    if not np.isfinite(vector).all():
        raise StoreError(
            f"{path}: the vector of {key!r} is not finite.", remedy="Compute it again."
        )
    return vector


def pooled_metadata(metadata: StoreMetadata, pool: Pool) -> StoreMetadata:
    """The metadata of vectors that are pooled from rows of ``metadata``."""
    return replace(metadata, settings={**metadata.settings, "pool": pool})


def write_gvf(
    path: str | Path,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    *,
    pool: Pool,
    metadata: StoreMetadata,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write global features in the official layout; the file appears whole or not at all.

    Args:
        path: The file.
        vectors: Key to shape (D,).
        pool: How clips became one vector.
        metadata: Of the rows that were pooled.
        attributes: Key to what is known of the video; of it, :data:`KEPT_ATTRIBUTES` are written.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    told = pooled_metadata(metadata, pool).to_attributes()
    told |= {"format": GVF_FORMAT, "source_format": told["format"], "pool": pool}
    with replacing(path) as aside:
        require_room(aside, sum(4 * len(vector) for vector in vectors.values()), len(vectors))
        with h5py.File(aside, "w") as file:
            file.attrs.update(told)
            for key in sorted(vectors):
                vector = np.asarray(vectors[key], dtype="<f4")
                dataset = file.create_dataset(key, data=vector, chunks=True, compression="gzip")
                for name, value in (attributes or {}).get(key, {}).items():
                    if name in KEPT_ATTRIBUTES:
                        dataset.attrs[name] = value
        # It names no rows, so that its checksum is of the whole file.
        append_trailer(aside, {}, {})


def gvf_from_store(
    features: str | Path, out: str | Path, *, pool: Pool = "max", overwrite: bool = False
) -> GlobalFeatures:
    """Pool a feature store, in memory that does not depend on the videos' length.

    Args:
        features: A store, ours or in the official layout.
        out: The file to write. One that holds global features of the same settings is replaced.
        pool: ``max`` or ``mean``.
        overwrite: Whether any other file is replaced, too; never the store itself.

    Raises:
        UsageError: If ``out`` is the store.
        StoreError: If the store cannot be read, is damaged or holds a video without rows, or
            ``out`` is something else already.
        StoreLockedError: If a run is writing ``out``.
    """
    vectors, attributes = {}, {}
    features, out = Path(features), Path(out)
    if out.exists() and features.exists() and out.samefile(features):
        raise UsageError(f"The output {out} is the input {features}.", remedy="Give another --out.")
    with open_store(features) as store, one_writer(out):
        if out.exists() and not overwrite:
            _require_replaceable(out, pooled_metadata(store.metadata, pool))
        if store.metadata.settings.get("pool"):
            raise StoreMismatchError(
                f"{features} holds global features already.", remedy="Give a feature store."
            )
        for key in store:
            video = store[key]
            running = RunningPool(pool)
            for rows in video.checked_blocks(_ROWS_AT_ONCE):
                running.add(rows)
            if running.n_rows == 0:
                raise StoreError(f"{features}: {key!r} has no rows.", remedy="Compute it again.")
            vectors[key] = running.result()
            attributes[key] = {**video.attrs, "pooled_rows": running.n_rows}
        if not vectors:
            raise StoreError(f"{features} holds no video.", remedy="Run `tsp extract` first.")
        write_gvf(out, vectors, pool=pool, metadata=store.metadata, attributes=attributes)
    return read_gvf(out)


def _require_replaceable(out: Path, metadata: StoreMetadata) -> None:
    if not is_gvf(out):
        raise StoreError(
            f"{out} exists and holds no global features.",
            remedy="Give another --out, or --overwrite.",
        )
    read_gvf(out).metadata.require_same(metadata, "this run", str(out))
