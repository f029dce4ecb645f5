"""``extract``: videos in, one feature store out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tspcli.encoders import Encoder
from tspcli.extraction.progress import Observer
from tspcli.extraction.report import ExtractReport
from tspcli.extraction.session import Kept, require_known, run_session
from tspcli.extraction.settings import ExtractConfig
from tspcli.features.metadata import StoreMetadata
from tspcli.features.parts import PartsFolder
from tspcli.features.store import open_store


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
    return run_session(
        videos, Path(out), _FeatureStore(), config=config, encoder=encoder, observer=observer
    )


class _FeatureStore:
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
