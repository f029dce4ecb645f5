"""What runs on a Ray cluster's nodes: an encoder with decode processes beside it."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace

from tspcli.core.version import __version__
from tspcli.encoders import Encoder
from tspcli.errors import TspError
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig, load_configured_encoder
from tspcli.extraction.run_report import VideoResult
from tspcli.extraction.service import EngineService, Words
from tspcli.extraction.shard_plan import file_size
from tspcli.extraction.task import Task
from tspcli.store.schema import StoreMetadata
from tspcli.video import VideoFile

_STORAGE_S = 20.0
"""How long a network file system may take to show a new folder."""


class EncoderActor:
    """An encoder on one node. Several videos are under way at once, a call each.

    Args:
        config: The user's choices.
        device: ``cpu`` or ``cuda``.
        n_cpus: Cores that it may use.
    """

    def __init__(self, config: ExtractConfig, device: str, n_cpus: int) -> None:
        self._config = config
        self._device = device
        self._n_cpus = n_cpus
        self._encoder: Encoder | None = None
        self._service: EngineService | None = None

    def load(self) -> tuple[str, EncoderFacts]:
        """Load the encoder; the version of this program here, and what is known of the encoder.

        Raises:
            TspError: If it cannot be loaded.
        """
        self._encoder = load_configured_encoder(self._config, self._device)
        return __version__, EncoderFacts.of(self._encoder)

    def take(self, task: Task) -> None:
        """Begin a run.

        Raises:
            TspError: If this node does not see the run's folder.
        """
        self._check_storage(task)
        assert self._encoder is not None
        config = replace(task.config, workers=task.config.workers or self._n_cpus)
        n_threads = self._n_cpus if self._device == "cpu" else None
        self._service = EngineService(replace(task, config=config), self._encoder, n_threads)

    def encode(self, file: VideoFile, source_bytes: int) -> VideoResult:
        """Do one video; its part is committed when this returns ``done``.

        Args:
            file: The video.
            source_bytes: Size of its file as the driver sees it.

        Raises:
            EngineClosedError: If the run was drained before the video had begun.
            TspError: If this node does not see the file although the driver does, or if nothing
                can be written.
        """
        assert self._service is not None
        if source_bytes and not file_size(file.path):
            raise TspError(
                f"The node {socket.gethostname()} does not see {file.path}.",
                remedy="Videos have to lie on storage that all nodes see under the same path.",
            )
        return self._service.encode(file)

    def words(self) -> Words:
        """What the engine has to say since the last call."""
        return Words() if self._service is None else self._service.words()

    def drain(self) -> None:
        """Begin no further video."""
        if self._service is not None:
            self._service.drain()

    def close(self) -> None:
        """End the run."""
        if self._service is not None:
            self._service.close()

    def _check_storage(self, task: Task) -> None:
        path = task.parts().folder / "settings.json"
        deadline = time.monotonic() + _STORAGE_S
        while True:
            try:
                seen = StoreMetadata.from_attributes(json.loads(path.read_text()), str(path))
                if seen.settings_digest == task.metadata.settings_digest:
                    return
            except (OSError, ValueError):
                pass
            if time.monotonic() > deadline:
                raise TspError(
                    f"The node {socket.gethostname()} does not see {path.parent}.",
                    remedy="The output has to lie on storage that all nodes see under one path.",
                )
            time.sleep(0.5)
