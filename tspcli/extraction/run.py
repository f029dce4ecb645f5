"""``extract``: videos in, one feature store out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import StoreMismatchError, UsageError
from tspcli.extraction.engine import Engine
from tspcli.extraction.plan import check_out, file_size, select_shard, shard_path
from tspcli.extraction.progress import Observer
from tspcli.extraction.report import ExtractReport, VideoResult
from tspcli.extraction.settings import ExtractConfig
from tspcli.extraction.writing import WriterThread
from tspcli.features.lock import lock_store
from tspcli.features.metadata import StoreMetadata
from tspcli.features.parts import PartsFolder
from tspcli.features.store import open_store
from tspcli.video import VideoFile, list_videos


def extract(
    videos: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    config: ExtractConfig | None = None,
    encoder: Encoder | None = None,
    observer: Observer | None = None,
    **options: Any,
) -> ExtractReport:
    """Compute clip features of videos into a store.

    Videos that the store already holds are kept; a run that was killed goes on where it stopped.
    A video that cannot be decoded ends in the report, never in an exception.

    Args:
        videos: Files, folders (searched recursively) or ``.txt`` lists of files.
        out: The HDF5 file; see :mod:`tspcli.features.store` for what it holds.
        config: The settings.
        encoder: An encoder that is loaded already; otherwise the config's weights are loaded.
        observer: Is told how the run goes.
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
    observer = observer or Observer()
    inputs = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
    out = Path(out)
    check_out(out)
    files = list_videos(inputs, key_template=config.key_template)
    if not files:
        raise UsageError(
            f"There is no video in {', '.join(str(name) for name in inputs) or 'an empty list'}.",
            remedy="Name video files, folders of them, or .txt lists.",
        )
    if config.shard is not None:
        files = select_shard(files, config.shard)
        out = shard_path(out, config.shard)
    if encoder is None:
        encoder = load_encoder(
            config.weights,
            backbone=config.backbone,
            device=config.device,
            precision=config.precision,
            seed=config.seed,
        )
    sampling = config.resolve_sampling(encoder.sampling)
    metadata = StoreMetadata.build(sampling=sampling, encoder=encoder.provenance)
    report = ExtractReport(str(out), metadata.settings)
    with lock_store(out):
        parts = PartsFolder(out, metadata)
        kept = {} if config.overwrite else _kept_in_store(out, metadata)
        parts.open(discard=config.overwrite)
        for problem in parts.discarded:
            report.notes.append(problem)
            observer.message(problem)
        kept.update(
            {part.key: _Kept(part.n_rows, part.attributes) for part in parts.parts.values()}
        )
        for file in files:
            if file.key in kept and (change := change_since(file, kept[file.key].attributes)):
                del kept[file.key]
                report.notes.append(change)
                observer.message(change)
        todo = [file for file in files if file.key not in kept]
        for file in files:
            if file.key in kept:
                report.videos.append(_kept_result(file, kept[file.key]))
        engine = Engine(
            encoder=encoder,
            sampling=sampling,
            config=config,
            open_sink=lambda file: writer.video(file.key, encoder.feature_dim),
            report=report,
            observer=observer,
        )
        engine.progress.n_videos = len(todo)
        observer.started(engine.progress, len(files) - len(todo))
        if todo:
            with WriterThread(parts) as writer:
                engine.run(todo)
            engine.flush_results()
        if parts.parts:
            parts.assemble(keep_existing=not config.overwrite)
        else:
            parts.remove()
        report.videos.sort(key=lambda result: result.key)
        report.write()
    return report


class _Kept(NamedTuple):
    n_rows: int
    attributes: Mapping[str, Any]


def _kept_in_store(out: Path, metadata: StoreMetadata) -> dict[str, _Kept]:
    """The videos of a store that exists, whose settings have to be this run's."""
    if not out.exists():
        return {}
    with open_store(out) as store:
        if not store.metadata.settings:
            raise StoreMismatchError(
                f"{out} exists and does not tell how its features were made.",
                remedy="Give another --out, or --overwrite to replace it.",
            )
        store.metadata.require_same(metadata, "this run", str(out))
        return {key: _Kept(store[key].n_rows, store[key].attrs) for key in store}


def change_since(file: VideoFile, attributes: Mapping[str, Any]) -> str | None:
    """How a video's file differs from the one of which features with these attributes are."""
    stored = attributes.get("source_bytes")
    size = file_size(file)
    if stored is None or not size or size == stored:
        return None
    return (
        f"{file.path} has {size} bytes now, {stored} when its features were computed: "
        "they are computed again."
    )


def _kept_result(file: VideoFile, kept: _Kept) -> VideoResult:
    warnings = json.loads(kept.attributes.get("warnings", "[]"))
    return VideoResult(
        file.key,
        str(file.path),
        "kept",
        n_rows=kept.n_rows,
        duration_s=kept.attributes.get("duration_s"),
        decoder=kept.attributes.get("decoder"),
        warnings=tuple(warnings),
    )
