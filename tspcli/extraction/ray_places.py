"""Where on a Ray cluster encoders go.

Reaching a Ray cluster.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tspcli.errors import DependencyError, TspError, UsageError
from tspcli.extraction.extract_config import ExtractConfig

_CPUS_PER_ENCODER = 8
"""Where no node has a GPU. More threads for one encoder gain little, and each encoder holds its
weights and its frames in memory."""


@dataclass(frozen=True)
class Place:
    """Room for one encoder on a node.

    Attributes:
        node: Ray's id of the node.
        address: The node's address, for messages.
        number: Counts the places of a node.
        device: ``cuda`` (one whole GPU) or ``cpu``.
        n_cpus: Cores for decoding, and for encoding on a CPU.
    """

    node: str
    address: str
    number: int
    device: str
    n_cpus: int

    @property
    def name(self) -> str:
        """The place in words."""
        return f"encoder {self.number} on node {self.address} ({self.node[:8]})"


def find_places(nodes: Sequence[Mapping[str, Any]], config: ExtractConfig) -> list[Place]:
    """A place for each GPU of the living nodes, with its share of the node's cores.

    Without GPUs, or with ``device`` ``cpu`` or the runtime ``openvino``, a node has a place for
    every 8 cores, one at least.

    Args:
        nodes: As ``ray.nodes()`` gives them.
        config: The user's choices.

    Raises:
        UsageError: If the choice of devices makes no sense on a cluster.
    """
    if config.device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {config.device} does not say what a cluster's encoders run on.",
            remedy="Give auto, cpu or cuda; --gpus N takes N GPUs of the cluster.",
        )
    alive = sorted((node for node in nodes if node["Alive"]), key=lambda node: node["NodeID"])
    with_gpus = [node for node in alive if _count(node, "GPU")]
    on_cpus = config.device == "cpu" or (config.device == "auto" and config.runtime == "openvino")
    if on_cpus and config.gpus is not None:
        other = "--device cpu" if config.device == "cpu" else "--runtime openvino"
        raise UsageError(
            f"Both --gpus {config.gpus} and {other} are given.", remedy="Give one of the two."
        )
    if on_cpus or not with_gpus:
        if config.device == "cuda" or config.gpus is not None:
            return []
        return [place for node in alive for place in _cpu_places(node)]
    places = [place for node in with_gpus for place in _gpu_places(node)]
    return places if config.gpus in (None, "all") else places[: int(config.gpus)]


def _gpu_places(node: Mapping[str, Any]) -> list[Place]:
    n_gpus = _count(node, "GPU")
    return _places(node, n_gpus, "cuda", max(1, _count(node, "CPU") // n_gpus))


def _cpu_places(node: Mapping[str, Any]) -> list[Place]:
    n_cpus = _count(node, "CPU")
    count = max(1, n_cpus // _CPUS_PER_ENCODER)
    return _places(node, count, "cpu", n_cpus // count) if n_cpus else []


def _places(node: Mapping[str, Any], count: int, device: str, n_cpus: int) -> list[Place]:
    address = str(node.get("NodeManagerAddress", "unknown"))
    return [
        Place(str(node["NodeID"]), address, number, device, n_cpus)
        for number in range(1, count + 1)
    ]


def _count(node: Mapping[str, Any], resource: str) -> int:
    return int(node.get("Resources", {}).get(resource, 0))


_LOCAL_OBJECTS_BYTES = 128 << 20


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
                    f"There is no Ray cluster at {named} ({error}).",
                    remedy="Check the address; `ray status` tells whether it lives.",
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
