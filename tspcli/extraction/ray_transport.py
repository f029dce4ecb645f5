"""Workers on a Ray cluster: where they go, how the cluster is connected, and how they are asked.

A worker is an actor with one GPU, or some of a node's cores. Its updates are answers to a call
that it leaves open until it has something to report. Only names and outcomes pass through Ray.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tspcli.core.text import counted, first_line
from tspcli.errors import DependencyError, TspError, UsageError
from tspcli.extraction.encode_worker import BEAT_S, EncodeWorker
from tspcli.extraction.extract_config import ExtractConfig
from tspcli.extraction.task import Place, Request, Update
from tspcli.extraction.transports import Worker

_CPUS_PER_ENCODER = 8
"""Where no node has a GPU. More threads for one encoder gain little, and each encoder holds its
weights and its frames in memory."""
_LOCAL_OBJECTS_BYTES = 128 << 20
_CALLS_AT_ONCE = 4
"""Loading, a request, the open call for an update, and one to spare."""


class EncoderActor:
    """A worker on a node.

    Args:
        config: The user's choices.
        place: Where it is.
    """

    def __init__(self, config: ExtractConfig, place: Place) -> None:
        self._worker = EncodeWorker(config, place)

    def load(self) -> None:
        """Load the encoder."""
        self._worker.load()

    def send(self, request: Request) -> None:
        """Do what is asked."""
        self._worker.handle(request)

    def receive(self) -> Update:
        """The next update, empty after a while without news."""
        return self._worker.take_update(BEAT_S)


class RayWorker:
    """A worker on a node, as the driver sees it.

    Args:
        place: Where it is.
        actor: Its handle.
    """

    def __init__(self, place: Place, actor: Any) -> None:
        self.place = place
        self._actor = actor
        self.answer = actor.receive.remote()
        """Reference to its next update."""
        actor.load.remote()

    def send(self, request: Request) -> None:
        """Send; that it is gone is noticed where its updates are taken."""
        self._actor.send.remote(request)

    def receive(self) -> Update:
        """Its next update, which has arrived."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            update: Update = ray.get(self.answer)
        except RayTaskError as error:
            return Update(fault=f"failed: {error.cause!r}")
        except RayError as error:
            return Update(fault=f"is gone ({first_line(error)})")
        self.answer = self._actor.receive.remote()
        return update

    def kill(self) -> None:
        """End it."""
        import ray

        with suppress(Exception):
            ray.kill(self._actor)


class RayTransport:
    """Workers on a Ray cluster.

    Args:
        config: The user's choices; ``ray_address`` names the cluster. Without one it is the
            cluster that ``RAY_ADDRESS`` names or this machine belongs to, else one of this machine
            alone, started for the run.
    """

    needs_all = False
    starting_s: float | None = None
    """A cluster may have no room for long."""

    def __init__(self, config: ExtractConfig) -> None:
        self._config = config
        self._connected = False

    def connect(self) -> None:
        """Connect to the cluster.

        Raises:
            DependencyError: If Ray is not installed.
            TspError: If the cluster cannot be reached.
            UsageError: If it has no place for an encoder.
        """
        self._connected = connect(self._config.ray_address)
        if not self.places():
            import ray

            raise UsageError(
                "The Ray cluster has no node for an encoder: "
                f"{counted(len(ray.nodes()), 'node')}, device {self._config.device}, "
                f"GPUs {self._config.gpus or 'as many as there are'}.",
                remedy="See `ray status`; --device cpu computes without GPUs.",
                value=self._config.device,
            )

    def places(self) -> list[Place]:
        """One for each GPU of the living nodes, or for every few cores."""
        import ray

        return find_places(ray.nodes(), self._config)

    def start(self, place: Place) -> RayWorker:
        """Start an actor, as soon as the node has room for it."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            ray.remote(EncoderActor)
            .options(
                num_cpus=place.n_cpus,
                num_gpus=int(place.device == "cuda"),
                max_concurrency=_CALLS_AT_ONCE,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            )
            .remote(self._config, place)
        )
        return RayWorker(place, actor)

    def receive(self, workers: Sequence[Worker], wait_s: float) -> Iterator[tuple[Worker, Update]]:
        """Updates of workers."""
        import ray

        answers = {worker.answer: worker for worker in workers if isinstance(worker, RayWorker)}
        arrived, rest = ray.wait(list(answers), num_returns=1, timeout=wait_s)
        if arrived and rest:
            arrived += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for answer in arrived:
            yield answers[answer], answers[answer].receive()

    def close(self) -> None:
        """End the connection, if it was made here."""
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False


def find_places(nodes: Sequence[Mapping[str, Any]], config: ExtractConfig) -> list[Place]:
    """A place for each GPU of the living nodes, with its share of the node's cores.

    Without GPUs, or with ``device`` ``cpu`` or the runtime ``openvino``, a node has a place for
    every 8 cores, at least one.

    Args:
        nodes: As ``ray.nodes()`` gives them.
        config: The user's choices.

    Raises:
        UsageError: If the choice of devices makes no sense on a cluster.
    """
    if config.device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {config.device} names devices of one machine, not of a cluster.",
            remedy="Use auto, cpu or cuda; --gpus N takes N GPUs of the cluster.",
            option="--device",
            value=config.device,
        )
    alive = sorted((node for node in nodes if node["Alive"]), key=lambda node: node["NodeID"])
    with_gpus = [node for node in alive if _count(node, "GPU")]
    on_cpus = config.device == "cpu" or (config.device == "auto" and config.runtime == "openvino")
    if on_cpus and config.gpus is not None:
        other = "--device cpu" if config.device == "cpu" else "--runtime openvino"
        raise UsageError(
            f"--gpus {config.gpus} and {other} exclude each other.",
            option="--gpus",
            value=config.gpus,
        )
    if on_cpus or not with_gpus:
        if config.device == "cuda" or config.gpus is not None:
            return []
        with_cores = [node for node in alive if _count(node, "CPU")]
        return [p for node in with_cores for p in _places(node, _n_encoders(node), "cpu", config)]
    places = [p for node in with_gpus for p in _places(node, _count(node, "GPU"), "cuda", config)]
    return places if config.gpus in (None, "all") else places[: int(config.gpus)]


def _places(
    node: Mapping[str, Any], count: int, device: str, config: ExtractConfig
) -> Iterator[Place]:
    address, node_id = node.get("NodeManagerAddress", "unknown"), str(node["NodeID"])
    n_cpus = max(1, _count(node, "CPU") // count)
    for number in range(1, count + 1):
        name = f"node {address} ({node_id[:8]}, encoder {number})"
        yield Place(name, device, n_cpus, config.workers or n_cpus, node_id)


def _n_encoders(node: Mapping[str, Any]) -> int:
    return max(1, _count(node, "CPU") // _CPUS_PER_ENCODER)


def _count(node: Mapping[str, Any], resource: str) -> int:
    return int(node.get("Resources", {}).get(resource, 0))


def connect(address: str | None) -> bool:
    """Connect to a cluster, or start one of this machine alone if there is none.

    Args:
        address: The cluster; None takes what ``RAY_ADDRESS`` names, or the one that this machine
            belongs to.

    Returns:
        Whether a connection was made here, which the caller then has to end.

    Raises:
        DependencyError: If Ray is not installed.
        TspError: If the named cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f"Ray is not installed ({error}).", remedy="pip install 'tspcli[ray]'"
        ) from error
    if ray.is_initialized():
        return False
    named = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with _signal_handlers_kept():
        try:
            ray.init(address=named or "auto", **options)
        except ConnectionError as error:
            if named:
                raise TspError(
                    f"No Ray cluster answers at {named} ({error}).",
                    remedy="Check the address; `ray status` shows whether it is up.",
                    value=named,
                ) from error
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Frames travel beside Ray, so its own store of objects can be small.
            ray.init(include_dashboard=False, object_store_memory=_LOCAL_OBJECTS_BYTES, **options)
    return True


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)
