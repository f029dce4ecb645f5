"""A run in this process: one encoder, with decode processes in front of it."""

from __future__ import annotations

from collections.abc import Sequence

from tspcli.encoders import Encoder
from tspcli.extraction.engine import Engine
from tspcli.extraction.facts import EncoderFacts, load_configured_encoder
from tspcli.extraction.progress import Observer
from tspcli.extraction.runners.task import Board, Task
from tspcli.extraction.settings import ExtractConfig
from tspcli.extraction.writing import WriterThread
from tspcli.features.parts import PartsFolder
from tspcli.video import VideoFile


class LocalRunner:
    """Runs the engine here.

    Args:
        config: The user's choices.
        encoder: An encoder that is loaded already.
    """

    shares_out = False

    def __init__(self, config: ExtractConfig, encoder: Encoder | None = None) -> None:
        self._config = config
        self._encoder = encoder

    def start(self, observer: Observer) -> EncoderFacts:
        """Load the encoder, if it is not loaded."""
        if self._encoder is None:
            self._encoder = load_configured_encoder(self._config)
        return EncoderFacts.of(self._encoder)

    def run(
        self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, board: Board
    ) -> None:
        """Do the videos."""
        assert self._encoder is not None
        with WriterThread(parts) as writer:
            engine = Engine(
                encoder=self._encoder,
                sampling=task.sampling,
                config=task.config,
                open_sink=lambda file: task.open_sink(writer, file),
                report=board.report,
                observer=board.observer,
                progress=board.progress,
            )
            engine.run(videos)
        engine.flush_results()

    def close(self) -> None:
        """There is nothing to let go of."""
