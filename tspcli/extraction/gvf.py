"""Global video features straight from videos: each video is pooled while it is encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.encoders import Encoder
from tspcli.extraction.progress import Observer
from tspcli.extraction.report import ExtractReport
from tspcli.extraction.session import Kept, require_known, run_session
from tspcli.extraction.settings import ExtractConfig
from tspcli.features.gvf import Pool, pooled_metadata, read_gvf, write_gvf
from tspcli.features.metadata import StoreMetadata
from tspcli.features.parts import PartsFolder

GVF_WEIGHTS = "r2plus1d_34-tac_on_kinetics"
GVF_STRIDE = 16
"""Stride of the clips that the official global features are pooled from."""


def compute_gvf(
    videos: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    pool: Pool = "max",
    config: ExtractConfig | None = None,
    encoder: Encoder | None = None,
    observer: Observer | None = None,
) -> ExtractReport:
    """Compute global video features in one pass over the videos.

    A run that was killed goes on where it stopped, and videos can be added to a file later, as
    with :func:`tspcli.extraction.extract`.

    Args:
        videos: Files, folders (searched recursively) or ``.txt`` lists of files.
        out: The HDF5 file.
        pool: ``max`` or ``mean`` over the clips of a video.
        config: The settings; stride 16 and the weights of :data:`GVF_WEIGHTS` if none are given.
        encoder: An encoder that is loaded already.
        observer: Is told how the run goes.

    Returns:
        What became of every video.

    Raises:
        UsageError, WeightsError, CheckpointError, StoreError: As ``extract`` does.
    """
    config = config or ExtractConfig(weights=GVF_WEIGHTS, stride=GVF_STRIDE)
    return run_session(
        videos, Path(out), _GlobalFeatures(pool), config=config, encoder=encoder, observer=observer
    )


class _GlobalFeatures:
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
