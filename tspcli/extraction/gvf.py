"""Global video features straight from videos: each video is pooled while it is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import StoreMismatchError, UsageError
from tspcli.extraction.engine import Engine
from tspcli.extraction.plan import check_out
from tspcli.extraction.progress import Observer
from tspcli.extraction.report import ExtractReport, VideoResult
from tspcli.extraction.run import change_since
from tspcli.extraction.settings import ExtractConfig
from tspcli.extraction.writing import VideoWriter, WriterThread
from tspcli.features.gvf import Pool, RunningPool, pooled_metadata, read_gvf, write_gvf
from tspcli.features.lock import lock_store
from tspcli.features.metadata import StoreMetadata
from tspcli.features.parts import PartsFolder
from tspcli.video import list_videos

GVF_WEIGHTS = "r2plus1d_34-tac_on_kinetics"
GVF_STRIDE = 16
"""Stride of the clips that the official global features are pooled from."""


class PoolingSink:
    """Takes the rows of a video and hands on the one that they pool to."""

    def __init__(self, writer: VideoWriter, pool: Pool) -> None:
        self._writer = writer
        self._running = RunningPool(pool)

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Take the next rows, shape (n, D)."""
        self._running.add(rows)

    def commit(self, attributes: Mapping[str, Any], done: Callable[[], None]) -> None:
        """All rows were given: store the pooled one."""
        self._writer.append(self._running.result()[None])
        self._writer.commit({**attributes, "pooled_rows": self._running.n_rows}, done)

    def abort(self) -> None:
        """Forget the rows given so far."""
        self._writer.abort()


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
    observer = observer or Observer()
    out = Path(out)
    check_out(out)
    inputs = [videos] if isinstance(videos, str | Path) else list(videos)
    files = list_videos(inputs, key_template=config.key_template)
    if not files:
        raise UsageError(f"There is no video in {', '.join(map(str, inputs))}.", remedy="Check it.")
    if encoder is None:
        encoder = load_encoder(
            config.weights,
            backbone=config.backbone,
            device=config.device,
            precision=config.precision,
            seed=config.seed,
        )
    sampling = config.resolve_sampling(encoder.sampling)
    rows_metadata = StoreMetadata.build(sampling=sampling, encoder=encoder.provenance)
    metadata = pooled_metadata(rows_metadata, pool)
    report = ExtractReport(str(out), metadata.settings)
    with lock_store(out):
        parts = PartsFolder(out, metadata)
        vectors, known = ({}, {}) if config.overwrite else _kept(out, metadata)
        parts.open(discard=config.overwrite)
        known.update({key: part.attributes for key, part in parts.parts.items()})
        kept = set(known)
        for file in files:
            if file.key in kept and (change := change_since(file, known[file.key])):
                kept.remove(file.key)
                report.notes.append(change)
                observer.message(change)
        todo = [file for file in files if file.key not in kept]
        for file in files:
            if file.key in kept:
                report.videos.append(VideoResult(file.key, str(file.path), "kept", n_rows=1))
        engine = Engine(
            encoder=encoder,
            sampling=sampling,
            config=replace(config, shard=None),
            open_sink=lambda file: PoolingSink(writer.video(file.key, encoder.feature_dim), pool),
            report=report,
            observer=observer,
        )
        engine.progress.n_videos = len(todo)
        observer.started(engine.progress, len(files) - len(todo))
        if todo:
            with WriterThread(parts) as writer:
                engine.run(todo)
            engine.flush_results()
        vectors.update({key: part.rows()[0] for key, part in parts.parts.items()})
        known.update({key: part.attributes for key, part in parts.parts.items()})
        if parts.parts:
            write_gvf(out, vectors, pool=pool, metadata=rows_metadata, attributes=known)
        parts.remove()
        report.videos.sort(key=lambda result: result.key)
        report.write()
    return report


def _kept(
    out: Path, metadata: StoreMetadata
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, Mapping[str, Any]]]:
    """Vectors and attributes of a file that exists, whose settings have to be this run's."""
    if not out.exists():
        return {}, {}
    existing = read_gvf(out)
    if not existing.metadata.settings:
        raise StoreMismatchError(
            f"{out} exists and does not tell how its features were made.",
            remedy="Give another --out, or --overwrite to replace it.",
        )
    existing.metadata.require_same(metadata, "this run", str(out))
    return dict(existing.vectors), {key: existing.attributes.get(key, {}) for key in existing}
