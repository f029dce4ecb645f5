"""Several devices: found in the environment, whoever launched the processes.

``torchrun`` (and ``tsp pretrain --gpus N``, which calls it) sets RANK, WORLD_SIZE and LOCAL_RANK;
``srun`` sets SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID. Without either there is one process.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tspcli.core.devices import device_count, resolve_device
from tspcli.errors import TrainingError, TspError

_TIMEOUT = timedelta(hours=24)
"""Long, because one process may build a clip cache while the others wait; if one dies, its launcher
notices at once."""
_SLURM_PORTS = (29_500, 20_000)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Placement:
    """Which process this is.

    Attributes:
        rank: Of all processes.
        world_size: How many there are.
        local_rank: Of those on this machine.
        local_size: How many are on this machine.
        launcher: ``torchrun``, ``slurm`` or ``none``.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "none"


def find_placement(environment: Mapping[str, str]) -> Placement:
    """Read the placement out of the environment.

    Raises:
        TrainingError: If a variable is no number.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            world = int(environment["WORLD_SIZE"])
            return Placement(
                int(environment["RANK"]),
                world,
                int(environment.get("LOCAL_RANK", 0)),
                int(environment.get("LOCAL_WORLD_SIZE", world)),
                "torchrun",
            )
        # A step that `srun` did not start has one task whatever the allocation has.
        if "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            world = int(environment["SLURM_STEP_NUM_TASKS"])
            per_node = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", str(world)))
            return Placement(
                int(environment["SLURM_PROCID"]),
                world,
                int(environment["SLURM_LOCALID"]),
                int(per_node[0]) if per_node else world,
                "slurm",
            )
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"The launcher's environment variables cannot be used ({error}).",
            remedy="Start with torchrun, srun, or `tsp pretrain --gpus N`.",
        ) from error
    return Placement()


def first_slurm_host(nodes: str) -> str:
    """The first host of a Slurm node list.

    >>> first_slurm_host("gpu[03-05,9],cpu1"), first_slurm_host("login,gpu1")
    ('gpu03', 'login')
    """
    head = re.match(r"([^\[,]+)(?:\[([^\]]+)\])?", nodes)
    if head is None:
        raise TrainingError(f"SLURM_STEP_NODELIST is {nodes!r}.", remedy="Set MASTER_ADDR.")
    numbers = head[2]
    return head[1] + (re.split(r"[-,]", numbers)[0] if numbers else "")


def rendezvous(environment: Mapping[str, str]) -> dict[str, str]:
    """Where the processes of a Slurm step meet: what is missing of MASTER_ADDR and MASTER_PORT."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    first, count = _SLURM_PORTS
    job = int(environment.get("SLURM_JOB_ID", 0)) + int(environment.get("SLURM_STEP_ID", 0))
    return {
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_slurm_host(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(first + job % count),
    }


class Devices:
    """This process's device, and how it talks to the others. Alone, every call is trivial.

    Args:
        placement: Which process this is.
        device: See :func:`resolve_device`; several processes take one device of a kind each, by
            their local rank.

    Raises:
        TrainingError: If there are fewer devices than processes on this machine.
        UsageError: If there is no such device here, or this torch has no code for it.
    """

    def __init__(self, placement: Placement, device: str = "auto") -> None:
        self.placement = placement
        self.rank, self.world_size = placement.rank, placement.world_size
        self.device = self._choose(device)
        if self.device.type != "cpu":
            torch.accelerator.set_device_index(self.device)
        self._joined = False

    def _choose(self, wanted: str) -> torch.device:
        if self.world_size == 1 or wanted == "cpu" or ":" in wanted:
            return resolve_device(wanted)
        kind = "cuda" if wanted == "auto" else wanted
        count, index = device_count(kind), self.placement.local_rank
        if self.placement.launcher == "slurm" and 0 < count < self.placement.local_size:
            index = 0  # `--gpus-per-task` shows each task its own devices, numbered from 0
        if index >= count and (count or wanted == "cuda"):
            raise TrainingError(
                f"Process {index} on this machine has no {kind} device: torch finds {count}.",
                remedy="Start one process per device, or use --device cpu.",
                value=index,
            )
        return resolve_device(wanted, index)

    def join(self) -> None:
        """Meet the other processes."""
        if self.world_size == 1 or self._joined:
            return
        if self.placement.launcher == "slurm":
            os.environ.update(rendezvous(os.environ))
        dist.init_process_group(
            # What processes agree on about each step lies on the CPU, so that no device is waited
            # for.
            _backends(self.device.type),
            init_method="env://",
            rank=self.rank,
            world_size=self.world_size,
            timeout=_TIMEOUT,
        )
        self._joined = True

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place, on the tensor's own device."""
        if self._joined:
            dist.all_reduce(values)
        return values

    def sum_numbers(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes; no device is waited for."""
        if not self._joined:
            return list(numbers)
        sums: list[float] = self.sum(torch.tensor(numbers, dtype=torch.float64)).tolist()
        return sums

    def copy_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self._joined:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, on every process."""
        if not self._joined:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Raise on every process what is wrong on one of them, so that no other waits for it.

        What several find wrong alike, only the first of them reports to the user.
        """
        own: TspError | None = None
        try:
            yield
        except TspError as error:
            own = error
        problems = {rank: error for rank, error in enumerate(self.gather(own)) if error is not None}
        if not problems:
            return
        raised = own or next(iter(problems.values()))
        speaker = next(rank for rank, error in problems.items() if str(error) == str(raised))
        raised.reported_elsewhere = speaker != self.rank
        raise raised

    def barrier(self) -> None:
        """Wait for all."""
        if self.device.type != "cpu" and self._joined:
            torch.accelerator.synchronize(self.device)
        self.sum(torch.zeros(1))

    def close(self) -> None:
        """Leave the others."""
        if self._joined:
            dist.destroy_process_group()
            self._joined = False

    def __enter__(self) -> Devices:
        self.join()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _backends(device_type: str) -> str:
    if device_type == "cpu":
        return "gloo"
    own = dist.get_default_backend_for_device(device_type)
    return f"cpu:gloo,{device_type}:{own}"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``tsp`` with some arguments in several processes on this machine, by torch's launcher.

    Returns:
        The exit code: 128 and the number of the signal that stopped the launcher, which passes it
        on and waits; else that of the process that failed first, 0 if none did.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        main(["--standalone", f"--nproc-per-node={processes}", "-m", "tspcli", *arguments])
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        code: int = failed.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0
