"""Global video features: one vector per video, pooled over all its clips.

The layout is that of the official files: HDF5, one dataset per video at the root, named after the
video, shape (D,), float32, gzip. The file's attributes say where the vectors come from; the
official files have none, and can be read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreMismatchError, UsageError
from tspcli.store.hdf5_file import open_hdf5
from tspcli.store.hdf5_values import plain_attributes
from tspcli.store.schema import FORMAT, GVF_FORMAT, StoreMetadata, gvf_attributes
from tspcli.store.store import open_store
from tspcli.store.store_writer import new_store

Pool = Literal["max", "mean"]
_ROWS_AT_ONCE = 16_384


class RunningPool:
    """The maximum or the mean of rows that come in pieces; no row is kept.

    Args:
        pool: ``max``, or ``mean``, which is summed in double precision.
    """

    def __init__(self, pool: Pool) -> None:
        if pool not in get_args(Pool):
            raise UsageError(
                f"There is no pooling {pool!r}.", remedy="Use max or mean.", value=pool
            )
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
        pool: How clips became one vector; None for files that do not state it.
        metadata: Encoder and sampling of the clips; empty for files that do not state it.
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
        with open_hdf5(Path(path)) as file:
            if "format" in file.attrs:
                return bool(plain_attributes(file)["format"] == GVF_FORMAT)
            first = next(iter(file), None)
            return first is not None and getattr(file[first], "ndim", None) == 1
    except (StoreError, OSError, RuntimeError, KeyError):
        return False


def read_gvf(path: str | Path) -> GlobalFeatures:
    """Read global video features, ours or an official file.

    Raises:
        StoreError: If the file is not one or is damaged, or its vectors differ in width or are not
            finite, naming the video.
    """
    path = Path(path)
    with open_store(path) as store:
        attributes = store.file_attributes
        found = {key: store.read_vector(key) for key in store}
    vectors = {key: vector for key, (vector, _) in found.items()}
    known = {key: about for key, (_, about) in found.items()}
    if not vectors:
        raise StoreError(f"{path} holds no video.", remedy="Run `tsp gvf` again.", path=path)
    widths = {len(vector): key for key, vector in vectors.items()}
    if len(widths) > 1:
        raise StoreError(
            f"{path} mixes widths: " + ", ".join(f"{w} ({key})" for w, key in widths.items()) + ".",
            remedy="Compute it again with one encoder.",
            path=path,
            kind="widths",
        )
    for key, vector in vectors.items():
        if not np.isfinite(vector).all():
            raise StoreError(
                f"{path}: the vector of {key!r} is not finite.",
                remedy="Compute it again.",
                path=path,
                value=key,
            )
    if attributes.get("format") != GVF_FORMAT:
        return GlobalFeatures(path, vectors, None, StoreMetadata({}, {}, None), known)
    metadata = StoreMetadata.from_hdf5(
        {**attributes, "format": attributes.get("source_format")}, str(path)
    )
    return GlobalFeatures(path, vectors, attributes["pool"], metadata, known)


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
        attributes: Key to what is known of the video; what :func:`gvf_attributes` keeps is written.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    own = pooled_metadata(metadata, pool).to_hdf5(
        format=GVF_FORMAT, source_format=FORMAT, pool=pool
    )
    with new_store(path, own) as file:
        for key in sorted(vectors):
            known = gvf_attributes((attributes or {}).get(key, {}))
            file.add(key, np.asarray(vectors[key], dtype="<f4"), known, compression="gzip")


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
            path=out,
        )
    read_gvf(out).metadata.require_same(metadata, "this run", str(out))
