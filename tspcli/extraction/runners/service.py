"""An engine that takes videos while it runs."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import torch

from tspcli.encoders import Encoder
from tspcli.errors import TspError
from tspcli.extraction.decoding import open_pool
from tspcli.extraction.engine import Engine
from tspcli.extraction.facts import EncoderFacts
from tspcli.extraction.progress import Observer, Progress
from tspcli.extraction.report import ExtractReport, VideoResult
from tspcli.extraction.runners.pulse import Pulse, stuck_after_s
from tspcli.extraction.runners.task import Task
from tspcli.extraction.writing import WriterThread
from tspcli.video import VideoFile


class EngineClosedError(TspError):
    """An engine has ended without a video that it was asked for."""


class EngineStuckError(Exception):
    """An engine hangs; no error of the run, but its process is of no more use."""


@dataclass
class Words:
    """What an engine has to say since it was last asked.

    Attributes:
        progress: Its figures so far.
        messages: Lines worth showing.
        notes: What happened to it as a whole.
    """

    progress: Progress = field(default_factory=Progress)
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class EngineService(Observer):
    """Runs an engine on a thread of its own; its methods may be called from any.

    Args:
        task: The run.
        encoder: Its encoder.
        n_threads: Threads for computing on a CPU; None leaves torch's choice.
    """

    def __init__(self, task: Task, encoder: Encoder, n_threads: int | None = None) -> None:
        self._task = task
        self._report = ExtractReport(str(task.out), task.metadata.settings)
        self._lock = threading.Lock()
        self._asked: dict[str, Future[VideoResult]] = {}
        self._messages: list[str] = []
        self._progress = Progress()
        self._n_notes = 0
        self._fault: BaseException | None = None
        self._n_threads = n_threads
        self._pulse = Pulse(stuck_after_s(task.config), lambda: None, self._give_up)
        facts = EncoderFacts.of(encoder)
        self._pool = open_pool(
            [],
            facts,
            task.sampling,
            task.config,
            devices=[str(encoder.device)],
            hold_open=True,
        )
        self._thread = threading.Thread(
            target=self._run, args=(encoder,), name="tspcli-engine", daemon=True
        )
        self._thread.start()
        self._pulse.start()

    def encode(self, file: VideoFile) -> VideoResult:
        """Do a video; return once it is safe, or will never be.

        Raises:
            EngineClosedError: If the engine was told to end.
            TspError: If it has failed.
        """
        future: Future[VideoResult] = Future()
        with self._lock:
            if self._fault is not None:
                raise self._fault
            self._asked[file.key] = future
        self._pool.add(file)
        return future.result()

    def words(self) -> Words:
        """What there is to say since the last call."""
        with self._lock:
            messages, self._messages = self._messages, []
            notes = self._report.notes[self._n_notes :]
            self._n_notes += len(notes)
            return Words(self._progress, messages, notes)

    def drain(self) -> None:
        """Begin no further video, and end once those under way have ended."""
        self._pool.drain()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the engine: what is whole is committed, the rest is given up."""
        self._pulse.close()
        self._pool.close()
        self._thread.join(timeout_s)

    def wants_stop(self) -> bool:
        """Note that the engine looked for work; the driver tells it to end by draining."""
        self._pulse.turned()
        return False

    def progressed(self, progress: Progress) -> None:
        """Keep the figures."""
        self._pulse.advanced()
        with self._lock:
            self._progress = replace(progress)

    def video_ended(self, result: VideoResult) -> None:
        """Answer whoever asked for the video."""
        with self._lock:
            future = self._asked.pop(result.key, None)
        # None if it was given up, and hangs no more.
        if future is not None:
            future.set_result(result)

    def message(self, text: str) -> None:
        """Keep a line until somebody asks."""
        with self._lock:
            self._messages.append(text)

    def _run(self, encoder: Encoder) -> None:
        fault: BaseException = EngineClosedError("The engine was closed.")
        if self._n_threads:
            # It holds for the thread that asks.
            torch.set_num_threads(self._n_threads)
        try:
            with WriterThread(self._task.parts()) as writer:
                engine = Engine(
                    encoder=encoder,
                    sampling=self._task.sampling,
                    config=self._task.config,
                    open_sink=lambda file: self._task.open_sink(writer, file),
                    report=self._report,
                    observer=self,
                )
                self._pulse.watch(True)
                engine.consume(self._pulse.watched(self._pool))
            self._pulse.watch(False)
            engine.flush_results()
        except BaseException as error:  # whoever waits for a video is told
            fault = error
        self._end(fault)

    def _give_up(self, why: str) -> None:
        self._end(EngineStuckError(why))

    def _end(self, fault: BaseException) -> None:
        self._pulse.close()
        with self._lock:
            self._fault = fault
            left = list(self._asked.values())
            self._asked.clear()
        for future in left:
            future.set_exception(fault)
