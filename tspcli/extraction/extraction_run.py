"""``extract`` and ``compute_gvf``: videos in; a store of their rows, or one vector each, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.core.progress import Reporter
from tspcli.encoders import Encoder
from tspcli.extraction.extract_config import ExtractConfig
from tspcli.extraction.run_report import ExtractReport
from tspcli.extraction.session import Kept, require_known, run_session
from tspcli.store.gvf import Pool, pooled_metadata, read_gvf, write_gvf
from tspcli.store.parts import PartsFolder
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import open_store

GVF_WEIGHTS = "r2plus1d_34-tac_on_kinetics"
"""Of the official global features; the clips that suit them, stride 16, are the official ones."""


def extract(
    videos: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    config: ExtractConfig | None = None,
    encoder: Encoder | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> ExtractReport:
    """Compute clip features of videos into a store.

    Videos that the store already holds are kept; a run that was killed resumes where it stopped.
    A video that cannot be decoded ends in the report, never in an exception.

    Args:
        videos: Files, folders (searched recursively) or ``.txt`` lists of files.
        out: The HDF5 file; see :mod:`tspcli.store.store` for what it holds.
        config: The settings.
        encoder: An encoder that is loaded already; otherwise the config's weights are loaded.
        reporter: Watches the run.
        **options: Fields of :class:`ExtractConfig`, instead of ``config`` or over it.

    Returns:
        What became of every video; also written to ``<out>.report.json``.

    Raises:
        UsageError: If there are no videos, two have one key, or a setting makes no sense.
        WeightsError, CheckpointError: If the encoder cannot be loaded.
        StoreMismatchError: If ``out`` exists and was made with other settings.
        StoreLockedError: If another run writes ``out``.
        StoreError: If the disk is full or the folder cannot be written.

    Example:
        >>> report = extract("videos/", "feats.h5", weights="tiny")        # doctest: +SKIP
        >>> [(video.key, video.reason) for video in report.failed]         # doctest: +SKIP
        [('v_broken', 'not-a-video')]
    """
    config = replace(config or ExtractConfig(), **options)
    return run_session(
        videos, Path(out), _RowOutput(), config=config, encoder=encoder, reporter=reporter
    )


class _RowOutput:
    """All rows of every video."""

    pool = None

    def metadata(self, rows: StoreMetadata) -> StoreMetadata:
        """What the store says of itself."""
        return rows

    def kept(self, out: Path, metadata: StoreMetadata) -> dict[str, Kept]:
        """The videos of a store that exists."""
        if not out.exists():
            return {}
        with open_store(out) as store:
            require_known(store.metadata, out)
            store.metadata.require_same(metadata, "this run", str(out))
            return {video.key: Kept(video.n_rows, video.attrs) for video in store.values()}

    def assemble(self, parts: PartsFolder, rows: StoreMetadata, *, keep_existing: bool) -> None:
        """Write the store."""
        parts.assemble(keep_existing=keep_existing)


def compute_gvf(
    videos: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    pool: Pool = "max",
    config: ExtractConfig | None = None,
    encoder: Encoder | None = None,
    reporter: Reporter | None = None,
) -> ExtractReport:
    """Compute global video features in one pass over the videos.

    A run that was killed resumes where it stopped, and videos can be added to a file later, as with
    :func:`extract`.

    Args:
        videos: Files, folders (searched recursively) or ``.txt`` lists of files.
        out: The HDF5 file.
        pool: ``max`` or ``mean`` over the clips of a video.
        config: The settings; the weights :data:`GVF_WEIGHTS` if none are given.
        encoder: An encoder that is loaded already.
        reporter: Watches the run.

    Returns:
        What became of every video.

    Raises:
        UsageError, WeightsError, CheckpointError, StoreError: As ``extract`` does.
    """
    config = config or ExtractConfig(weights=GVF_WEIGHTS)
    return run_session(
        videos, Path(out), _PooledOutput(pool), config=config, encoder=encoder, reporter=reporter
    )


class _PooledOutput:
    """One vector of every video."""

    def __init__(self, pool: Pool) -> None:
        self.pool: Pool = pool

    def metadata(self, rows: StoreMetadata) -> StoreMetadata:
        """What the file says of itself."""
        return pooled_metadata(rows, self.pool)

    def kept(self, out: Path, metadata: StoreMetadata) -> dict[str, Kept]:
        """The videos of a file that exists."""
        if not out.exists():
            return {}
        existing = read_gvf(out)
        require_known(existing.metadata, out)
        existing.metadata.require_same(metadata, "this run", str(out))
        return {key: Kept(1, existing.attributes.get(key, {})) for key in existing}

    def assemble(self, parts: PartsFolder, rows: StoreMetadata, *, keep_existing: bool) -> None:
        """Write the file."""
        out = parts.store
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        known: dict[str, Mapping[str, Any]] = {}
        if keep_existing and out.exists():
            existing = read_gvf(out)
            existing.metadata.require_same(parts.metadata, "this run", str(out))
            vectors.update(existing.vectors)
            known.update(existing.attributes)
        for key, part in parts.parts.items():
            part.require_intact()
            vectors[key] = part.rows()[0]
            known[key] = part.attributes
        write_gvf(out, vectors, pool=self.pool, metadata=rows, attributes=known)
        parts.remove()
