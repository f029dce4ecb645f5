"""How the encoder of a run is reached: in this process, or in child processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Protocol

from tspcli.core.child_process import ChildProcess, available_cores
from tspcli.core.text import counted
from tspcli.encoders import Encoder
from tspcli.errors import UsageError
from tspcli.extraction.engine import Engine
from tspcli.extraction.extract_config import EncoderInfo, ExtractConfig, load_configured_encoder
from tspcli.extraction.row_writer import WriterThread
from tspcli.extraction.task import Place, Request, RunLog, Task, Update
from tspcli.store.parts import PartsFolder
from tspcli.video import VideoFile

_UNREAD_S = 120.0
"""How long a child process may leave what is sent to it unread, or a message of its own half sent.
"""


class Worker(Protocol):
    """A worker that was started, wherever it runs."""

    place: Place

    def send(self, request: Request) -> None:
        """Ask for something; that the worker is gone is noticed where its updates are taken."""

    def kill(self) -> None:
        """End it at once; harmless if it is gone."""


class Transport(Protocol):
    """Where workers run and how they are reached.

    Attributes:
        needs_all: Whether a run begins only when a worker at every place is ready.
        starting_s: How long a worker that is not ready may be silent, or None for any time.
    """

    needs_all: bool
    starting_s: float | None

    def connect(self) -> None:
        """Reach what workers run on.

        Raises:
            TspError: If it cannot be reached, or has no place for a worker.
        """

    def places(self) -> list[Place]:
        """Where there is room for a worker now, taken or not."""

    def start(self, place: Place) -> Worker:
        """Start a worker, which loads its encoder."""

    def receive(self, workers: Sequence[Worker], wait_s: float) -> Iterator[tuple[Worker, Update]]:
        """Updates of workers; one that is gone has a last update with its ``fault``.

        Args:
            workers: At least one.
            wait_s: How long to wait for the first.
        """

    def close(self) -> None:
        """Release everything; harmless if called again."""


class InProcessRunner:
    """Runs one engine in this process, unwatched: there is nobody who could replace it.

    Args:
        config: The user's choices.
        encoder: An encoder that is loaded already.
    """

    is_parallel = False

    def __init__(self, config: ExtractConfig, encoder: Encoder | None = None) -> None:
        self._config = config
        self._encoder = encoder

    def start(self, log: RunLog) -> EncoderInfo:
        """Load the encoder, if it is not loaded."""
        if self._encoder is None:
            self._encoder = load_configured_encoder(self._config)
        return EncoderInfo.of(self._encoder)

    def run(self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, log: RunLog) -> None:
        """Do the videos."""
        assert self._encoder is not None
        with WriterThread(parts) as writer:
            engine = Engine(
                encoder=self._encoder,
                sampling=task.sampling,
                config=task.config,
                open_sink=lambda file: task.open_sink(writer, file),
                log=log,
            )
            engine.run(videos)
        engine.flush_results()

    def close(self) -> None:
        """There is nothing to release."""


class ChildWorker:
    """A worker in a child process.

    Args:
        config: The user's choices.
        place: The device.
        module: Whose ``main`` it runs.
    """

    def __init__(self, config: ExtractConfig, place: Place, module: str) -> None:
        self.place = place
        self.process = ChildProcess(module)
        self.process.limit_waiting(_UNREAD_S)
        self._fault: str | None = None
        self._gone = False
        self._send((config, place))

    def send(self, request: Request) -> None:
        """Send; that it has died is noticed where its updates are taken."""
        self._send(request)

    def receive(self) -> Update:
        """Its next update, which has begun to arrive."""
        try:
            update: Update = self.process.connection.recv()
        except (EOFError, OSError):
            return Update(fault=self._fault or self.process.last_words())
        return update

    def kill(self) -> None:
        """End it, and close everything."""
        if not self._gone:
            self._gone = True
            self.process.dispose()

    def _send(self, message: object) -> None:
        try:
            self.process.connection.send(message)
        except BlockingIOError:
            self._fault = f"read nothing for {_UNREAD_S:g} s"
            self.process.kill()
            # A process that the system does not let go of does not end by that.
            self.process.hang_up()
        except OSError:
            pass


class ChildTransport:
    """Workers in child processes, one for each device of this machine that was named.

    Args:
        config: The user's choices.
        devices: Names of torch devices; one may be named twice.
    """

    needs_all = True
    starting_s: float | None = 600.0
    """Python imports libraries without letting threads run."""
    module = "tspcli.extraction.encode_worker"
    """Whose ``main`` the processes run."""

    def __init__(self, config: ExtractConfig, devices: Sequence[str]) -> None:
        self._config = config
        n_devices = len(devices)
        n_cpus = max(1, available_cores() // n_devices)
        n_decoders = config.workers or available_cores()
        self._places = [
            Place(
                f"{device} (process {number})",
                device,
                n_cpus,
                # The first get one more where they cannot be shared out evenly.
                max(1, (n_decoders + n_devices - number) // n_devices),
            )
            for number, device in enumerate(devices, start=1)
        ]

    def connect(self) -> None:
        """There is nothing to reach."""

    def places(self) -> list[Place]:
        """One for each device."""
        return self._places

    def start(self, place: Place) -> ChildWorker:
        """Start a worker's process."""
        return ChildWorker(self._config, place, self.module)

    def receive(self, workers: Sequence[Worker], wait_s: float) -> Iterator[tuple[Worker, Update]]:
        """Updates of workers."""
        connections = {
            worker.process.connection: worker
            for worker in workers
            if isinstance(worker, ChildWorker)
        }
        for connection in wait(list(connections), wait_s):
            worker = connections[connection]  # type: ignore[index]  # one of those given
            yield worker, worker.receive()

    def close(self) -> None:
        """The processes are their supervisor's to end."""


def device_names(config: ExtractConfig) -> list[str]:
    """The devices that the user chose; one for each process that is to encode.

    Raises:
        UsageError: If there are fewer GPUs than asked for, or both options name devices.
    """
    if config.gpus is None:
        return [name.strip() for name in config.device.split(",")]
    if config.device not in ("auto", "cuda"):
        raise UsageError(
            f"--gpus {config.gpus} and --device {config.device} exclude each other.",
            option="--gpus",
            value=config.gpus,
        )
    from tspcli.core.devices import device_count

    found = device_count()
    wanted = found if config.gpus == "all" else int(config.gpus)
    if wanted > found or not wanted:
        raise UsageError(
            f"--gpus {config.gpus}: torch sees {counted(found, 'GPU')}.",
            remedy="Use --device cpu, or see `tsp doctor`.",
            option="--gpus",
            value=config.gpus,
        )
    return [f"cuda:{index}" for index in range(wanted)]
