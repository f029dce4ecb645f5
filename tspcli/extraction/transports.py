"""A run in this process: one encoder, with decode processes in front of it."""

from __future__ import annotations

from collections.abc import Sequence

from tspcli.core.progress import Reporter
from tspcli.core.text import first_line
from tspcli.encoders import Encoder
from tspcli.encoders.precision import is_out_of_memory
from tspcli.errors import TspError
from tspcli.extraction.engine import Engine
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig, load_configured_encoder
from tspcli.extraction.row_writer import WriterThread
from tspcli.extraction.task import Board, Task
from tspcli.store.parts import PartsFolder
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

    def start(self, reporter: Reporter) -> EncoderFacts:
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
                reporter=board.reporter,
                progress=board.progress,
            )
            try:
                engine.run(videos)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Halving a batch helps where it is encoded; frames and clips were there before.
                raise TspError(
                    f"There is not enough memory for the frames and clips of a run "
                    f"({first_line(error)}).",
                    remedy="Give the same command again with a smaller --batch-size or fewer "
                    "--workers, or free memory on the device; what is finished is kept.",
                ) from error
        engine.flush_results()

    def close(self) -> None:
        """There is nothing to let go of."""
