"""An engine that takes videos while it runs.

Signs of life of an engine that another process waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tspcli.core.progress import Reporter
from tspcli.encoders import Encoder
from tspcli.errors import TspError
from tspcli.extraction.engine import Engine
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig
from tspcli.extraction.feeder import EventSource, open_pool
from tspcli.extraction.row_writer import WriterThread
from tspcli.extraction.run_report import ExtractReport, RunFigures, VideoResult
from tspcli.extraction.task import Task
from tspcli.video import Event, Idle, VideoFile, Woken


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

    progress: RunFigures = field(default_factory=RunFigures)
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class EngineService(Reporter):
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
        self._progress = RunFigures()
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

    def stop_requested(self) -> bool:
        """Note that the engine looked for work; the driver tells it to end by draining."""
        self._pulse.turned()
        return False

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        """Keep the figures."""
        self._pulse.advanced()
        with self._lock:
            self._progress = replace(figures)

    def result(self, result: VideoResult) -> None:
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
                    reporter=self,
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


BEAT_S = 1.0
STUCK_S = 600.0
"""How long an engine that has work may finish no batch and take up no frames, ..."""
CLIP_S = 30.0
"""... and this for each clip of a batch, whose size the user may choose, on whatever processor."""
_CLIPS = 16
"""Clips that count for it where the device chooses: a series, the most that a CPU does at once."""


def stuck_after_s(config: ExtractConfig) -> float:
    """After how many seconds without a sign an engine counts as stuck."""
    return STUCK_S + CLIP_S * (config.batch_size or _CLIPS)


class Pulse:
    """Beats, and notices an engine that does not get on.

    A process that is stopped beats no more, which whoever waits for it notices. One that hangs
    inside the encoder goes on beating, but its threads come by no more. An engine without work is
    not stuck: it looks for some several times a second. Time is counted in beats, so that who was
    stopped together with everyone else, by Ctrl-Z, is not blamed for that time.

    Args:
        limit_s: After how long it is stuck.
        beat: Called at every beat.
        stuck: Called once, with the reason.
    """

    def __init__(
        self, limit_s: float, beat: Callable[[], None], stuck: Callable[[str], None]
    ) -> None:
        self._limit_s = limit_s
        self._beat = beat
        self._stuck = stuck
        self._watching = False
        self._ended = threading.Event()
        self._turned = self._advanced = self._took = False
        self._frames_out = False
        self._engine_s = self._feeder_s = 0.0

    def start(self) -> None:
        """Beat from now on, on a thread of its own."""
        threading.Thread(target=self._work, name="tspcli-pulse", daemon=True).start()

    def close(self) -> None:
        """Beat no more."""
        self._ended.set()

    def watch(self, watching: bool) -> None:
        """Say whether the engine is at work."""
        self._engine_s = self._feeder_s = 0.0
        self._watching = watching

    def turned(self) -> None:
        """The engine's thread looked for work."""
        self._turned = True

    def advanced(self) -> None:
        """The engine's thread has finished a batch."""
        self._advanced = True

    def watched(self, source: EventSource) -> EventSource:
        """The source, with an eye on the thread that takes from it."""
        return _Watched(source, self)

    def gave(self) -> None:
        """The feeder has taken something."""
        self._took = self._frames_out = True

    def came_back(self) -> None:
        """The feeder is done with what it took."""
        self._frames_out = False

    def step(self) -> None:
        """Do what is done once a beat."""
        turned, advanced, took = self._turned, self._advanced, self._took
        self._turned = self._advanced = self._took = False
        self._beat()
        if not self._watching:
            return
        self._engine_s = 0.0 if turned or advanced else self._engine_s + BEAT_S
        # It waits while the engine is at work, so a batch counts for it too.
        waits = advanced or took or not self._frames_out
        self._feeder_s = 0.0 if waits else self._feeder_s + BEAT_S
        if max(self._engine_s, self._feeder_s) >= self._limit_s:
            self._watching = False
            self._stuck(f"no batch was finished within {self._limit_s:g} s")

    def _work(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.step()


class _Watched:
    """A source whose taker is watched."""

    def __init__(self, source: EventSource, pulse: Pulse) -> None:
        self._source = source
        self._pulse = pulse
        self.wake = source.wake
        self.drain = source.drain
        self.close = source.close

    def live(self) -> Iterator[Event | Idle | Woken]:
        """What becomes of the videos."""
        for event in self._source.live():
            self._pulse.gave()
            yield event
            self._pulse.came_back()
        self._pulse.came_back()
