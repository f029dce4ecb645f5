"""A worker: an engine with its own decode pool, watched, and the process that it runs in.

Whoever supervises it sends :data:`tspcli.extraction.task.Request` messages and takes
:class:`tspcli.extraction.task.Update` ones, over a pipe or through Ray.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from tspcli.core.child_process import die_with_parent
from tspcli.core.progress import Reporter
from tspcli.core.version import __version__
from tspcli.encoders import Encoder
from tspcli.errors import TspError
from tspcli.extraction.engine import Engine
from tspcli.extraction.extract_config import EncoderInfo, ExtractConfig, load_configured_encoder
from tspcli.extraction.feeder import Heartbeat, open_pool
from tspcli.extraction.row_writer import WriterThread
from tspcli.extraction.run_report import ExtractReport, RunFigures, VideoResult
from tspcli.extraction.shard_plan import file_size
from tspcli.extraction.task import Begin, Drain, Encode, Place, Request, RunLog, Task, Update
from tspcli.store.schema import StoreMetadata
from tspcli.video import DecodePool

BEAT_S = 1.0
"""How often a worker gives a sign of life at least."""
STUCK_S = 600.0
"""How long an engine that has work may finish no batch and take up no frames, ..."""
CLIP_S = 30.0
"""... and this for each clip of a batch, whose size the user may choose, on whatever processor."""
_CLIPS = 16
"""Clips that count for it where the device chooses: a series, the most that a CPU does at once."""
_STORAGE_S = 20.0
"""How long a network file system may take to show a new folder."""
_CLOSING_S = 5.0


class EncodeWorker:
    """Runs an engine on a thread of its own; its methods may be called from any.

    Args:
        config: The user's choices.
        place: Where it is, and what it may use there.
    """

    def __init__(self, config: ExtractConfig, place: Place) -> None:
        self._config = config
        self._place = place
        self._news = threading.Condition()
        self._has_news = False
        self._update = Update()
        self._report = ExtractReport("", {})
        self._n_noted = 0
        self._encoder: Encoder | None = None
        self._pool: DecodePool | None = None
        self._engine: threading.Thread | None = None
        self._watchdog = Watchdog(stuck_after_s(config), lambda why: self._publish(fault=why))

    def load(self) -> None:
        """Load the encoder and report it; an error is reported too, not raised."""
        self._guarded(self._load)

    def handle(self, request: Request) -> None:
        """Do what is asked; the outcome is reported, errors too."""
        self._guarded(lambda: self._handle(request))

    def take_update(self, wait_s: float) -> Update:
        """What there is to report since the last call.

        Args:
            wait_s: How long to wait for something worth reporting at once.
        """
        with self._news:
            self._news.wait_for(lambda: self._has_news, wait_s)
            self._has_news = False
            update, self._update = self._update, Update()
            update.notes = self._report.notes[self._n_noted :]
            self._n_noted += len(update.notes)
            return update

    def _load(self) -> None:
        self._encoder = load_configured_encoder(self._config, self._place.device)
        self._publish(version=__version__, encoder=EncoderInfo.of(self._encoder))

    def _handle(self, request: Request) -> None:
        if isinstance(request, Begin):
            self._begin(request.task)
        elif isinstance(request, Encode):
            self._encode(request)
        elif isinstance(request, Drain):
            if self._pool is not None:
                self._pool.drain()
        else:
            self._watchdog.close()
            if self._pool is not None and self._engine is not None:
                self._pool.close()
                self._engine.join(_CLOSING_S)
            self._publish(ended=True)

    def _begin(self, task: Task) -> None:
        assert self._encoder is not None
        _require_storage(task)
        self._pool = open_pool(
            [],
            EncoderInfo.of(self._encoder),
            task.sampling,
            replace(task.config, workers=self._place.n_decoders),
            device=str(self._encoder.device),
            threads=max(1, self._place.n_cpus // self._place.n_decoders),
            hold_open=True,
        )
        self._engine = threading.Thread(
            target=self._run,
            args=(task, self._encoder, self._pool),
            name="tspcli-engine",
            daemon=True,
        )
        self._engine.start()
        self._watchdog.start()
        self._publish(begun=True)

    def _encode(self, request: Encode) -> None:
        path = request.file.path
        if request.source_bytes and not file_size(path):
            raise TspError(
                f"The node {socket.gethostname()} does not see {path}.",
                remedy="Put the videos on storage that all nodes see under the same path.",
                path=str(path),
            )
        assert self._pool is not None
        self._pool.add(request.file)

    def _run(self, task: Task, encoder: Encoder, pool: DecodePool) -> None:
        # Both hold for the thread that asks.
        if encoder.device.type != "cpu":
            torch.accelerator.set_device_index(encoder.device)
        else:
            torch.set_num_threads(self._place.n_cpus)

        def work() -> None:
            with WriterThread(task.parts()) as writer:
                engine = Engine(
                    encoder=encoder,
                    sampling=task.sampling,
                    config=task.config,
                    open_sink=lambda file: task.open_sink(writer, file),
                    log=RunLog(self._report, _Relay(self._publish)),
                    heartbeat=self._watchdog,
                )
                self._watchdog.watch(True)
                engine.consume(pool)
            self._watchdog.watch(False)
            engine.flush_results()

        self._guarded(work)
        self._watchdog.close()
        self._publish(ended=True)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do something; report an error of the run as one, and any other as this worker's fault."""
        try:
            work()
        except TspError as error:
            self._publish(error=error)
        except BaseException as error:  # whoever waits for this worker has to learn of it
            traceback.print_exc()
            self._publish(fault=f"failed: {type(error).__name__}: {error}")

    def _publish(
        self,
        *,
        result: VideoResult | None = None,
        message: str | None = None,
        figures: RunFigures | None = None,
        **changes: object,
    ) -> None:
        """Put something into the next update, which does not wait for figures alone."""
        with self._news:
            if result is not None:
                self._update.results.append(result)
            if message is not None:
                self._update.messages.append(message)
            if figures is not None:
                self._update.figures = figures
            for name, value in changes.items():
                setattr(self._update, name, value)
            if figures is None:
                self._has_news = True
                self._news.notify_all()


class _Relay(Reporter):
    """Puts what an engine shows its reporter into the worker's updates."""

    def __init__(self, publish: Callable[..., None]) -> None:
        self._publish = publish

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        self._publish(figures=replace(figures))

    def result(self, result: VideoResult) -> None:
        self._publish(result=result)

    def message(self, text: str) -> None:
        self._publish(message=text)


def _require_storage(task: Task) -> None:
    """Wait until this machine sees the run's folder.

    Raises:
        TspError: If it does not.
    """
    path = task.parts().folder / "settings.json"
    deadline = time.monotonic() + _STORAGE_S
    while True:
        try:
            seen = StoreMetadata.from_hdf5(json.loads(path.read_text()), str(path))
            if seen.settings_digest == task.metadata.settings_digest:
                return
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            raise TspError(
                f"The node {socket.gethostname()} does not see {path.parent}.",
                remedy="Put the output on storage that all nodes see under the same path.",
                path=str(path.parent),
            )
        time.sleep(0.5)


def stuck_after_s(config: ExtractConfig) -> float:
    """After how many seconds without a sign of progress an engine counts as stuck."""
    return STUCK_S + CLIP_S * (config.batch_size or _CLIPS)


class Watchdog(Heartbeat):
    """Notices an engine that makes no progress although its process lives.

    A process that is stopped sends no updates, which its supervisor notices. One that hangs inside
    the encoder continues to send them, but its threads no longer report here. An engine that has no
    work is not stuck: it looks for some several times a second. Time is counted in beats, so that a
    process stopped together with everyone else, by Ctrl-Z, is not blamed for that time.

    Args:
        limit_s: After how long it is stuck.
        stuck: Called once, with the reason.
    """

    def __init__(self, limit_s: float, stuck: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._stuck = stuck
        self._watching = False
        self._ended = threading.Event()
        self._ticked = self._advanced = self._took = False
        self._frames_out = False
        self._engine_s = self._feeder_s = 0.0

    def start(self) -> None:
        """Count time from now on, on a thread of its own."""
        threading.Thread(target=self._work, name="tspcli-watchdog", daemon=True).start()

    def close(self) -> None:
        """Count no more."""
        self._ended.set()

    def watch(self, watching: bool) -> None:
        """Say whether the engine is at work."""
        self._engine_s = self._feeder_s = 0.0
        self._watching = watching

    def engine_tick(self) -> None:
        """The engine's thread looked for work."""
        self._ticked = True

    def batch_done(self) -> None:
        """The engine's thread has finished a batch."""
        self._advanced = True

    def frames_taken(self) -> None:
        """The feeder has taken something from the decode pool."""
        self._took = self._frames_out = True

    def frames_returned(self) -> None:
        """The feeder is done with what it took."""
        self._frames_out = False

    def step(self) -> None:
        """Count one beat."""
        ticked, advanced, took = self._ticked, self._advanced, self._took
        self._ticked = self._advanced = self._took = False
        if not self._watching:
            return
        self._engine_s = 0.0 if ticked or advanced else self._engine_s + BEAT_S
        # It waits while the engine is at work, so a batch counts for it too.
        waits = advanced or took or not self._frames_out
        self._feeder_s = 0.0 if waits else self._feeder_s + BEAT_S
        if max(self._engine_s, self._feeder_s) >= self._limit_s:
            self._watching = False
            self._stuck(f"finished no batch within {self._limit_s:g} s")

    def _work(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.step()


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Be the process of one worker, until its parent ends it or ends itself."""
    # Both are the parent's business, which then asks for what it wants.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(lifeline_fd)
    connection = Connection(socket_fd)

    def send_updates() -> None:
        try:
            while True:
                connection.send(worker.take_update(BEAT_S))
        except OSError:  # the parent is gone, and whoever comes next must find nobody at work
            os._exit(1)

    try:
        worker = EncodeWorker(*connection.recv())
        threading.Thread(target=send_updates, name="tspcli-updates", daemon=True).start()
        worker.load()
        while True:
            worker.handle(connection.recv())
    except (EOFError, OSError):
        pass
    # Libraries' threads may hang in their destructors.
    os._exit(0)
