"""Batches of clips, read by loader processes ahead of the training loop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from multiprocessing import popen_spawn_posix, resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tspcli.core.text import first_line
from tspcli.encoders.preprocessing import ClipDraw, Preprocessing
from tspcli.errors import TrainingError, TspError, VideoError
from tspcli.pretraining.clip_cache_file import ClipReader
from tspcli.pretraining.epoch_plan import ClipPlan, ClipRequest
from tspcli.pretraining.training_segments import TrainingSegments

_MAX_WORKERS = 8
_PREFETCHED_BATCHES = 4
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class UnreadableClip(NamedTuple):
    """A clip that could not be read.

    Attributes:
        video: Its file name.
        clip: Its name for people.
        reason: Why.
    """

    video: str
    clip: str
    reason: str

    def __str__(self) -> str:
        return f"{self.clip}: {self.reason}"


class LoadedClip(NamedTuple):
    """What a loader made of a request.

    Attributes:
        pixels: (T, h, w, 3) uint8, mirrored and cropped; None if nothing could be read.
        request: What was read in the end.
        unreadable: What could not be read before that.
        fatal: Whether the run shall stop.
    """

    pixels: npt.NDArray[np.uint8] | None
    request: ClipRequest
    unreadable: tuple[UnreadableClip, ...] = ()
    fatal: bool = False


@dataclass
class ClipBatch:
    """The clips of one step on one device.

    Attributes:
        pixels: (B, T, h, w, 3) uint8, mirrored and cropped.
        action: (B,) int64 class ids, -1 for background.
        region: (B,) int64.
        gvf: (B, D) float32, or None.
        weight: (B,) float32, 1 for clips that count.
        names: Of the clips, for messages.
        unreadable: Clips that others stand in for, or that do not count.
        failed: Clips for which the run shall stop.
    """

    pixels: Tensor
    action: Tensor
    region: Tensor
    gvf: Tensor | None
    weight: Tensor
    names: list[str]
    unreadable: list[UnreadableClip] = field(default_factory=list)
    failed: list[UnreadableClip] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory, so that copies to CUDA need not wait.

        torch's loader calls it under this name, on a thread of its own.
        """
        return self._with(torch.Tensor.pin_memory)

    def pieces(self, count: int) -> list[ClipBatch]:
        """The batch cut into exactly ``count`` parts of nearly equal size, none empty.

        If it has fewer clips, its last one is repeated with weight 0.
        """
        batch = self
        if missing := max(count - len(self), 0):
            places = torch.tensor([*range(len(self)), *[len(self) - 1] * missing])
            batch = self._with(
                lambda tensor: tensor[places], self.names + self.names[-1:] * missing
            )
            batch.weight[len(self) :] = 0.0
        edges = [len(batch) * i // count for i in range(count + 1)]
        return [
            batch._with(lambda tensor, a=a, b=b: tensor[a:b], batch.names[a:b])  # type: ignore[misc]
            for a, b in pairwise(edges)
        ]

    def _with(
        self, change: Callable[[Tensor], Tensor], names: list[str] | None = None
    ) -> ClipBatch:
        return replace(
            self,
            pixels=change(self.pixels),
            action=change(self.action),
            region=change(self.region),
            gvf=None if self.gvf is None else change(self.gvf),
            weight=change(self.weight),
            names=self.names if names is None else names,
        )


@dataclass
class ClipLoader:
    """Turns requests into clips; a map-style data set for torch's loader.

    Attributes:
        plan: Of the clips.
        reader: Where clips are read.
        preprocessing: Whose crop is taken.
        gvf: One row per video of the table, or None.
        skip: What to do about a clip whose video cannot be read: if true, another stands in for it
            in training and it does not count in validation; otherwise the run shall stop.
    """

    plan: ClipPlan
    reader: ClipReader
    preprocessing: Preprocessing
    gvf: npt.NDArray[np.float32] | None = None
    skip: bool = False

    @property
    def table(self) -> TrainingSegments:
        """The segments."""
        return self.plan.table

    def __getitem__(self, request: ClipRequest) -> LoadedClip:
        """A clip. What cannot be read is part of the result: all devices have to learn of it."""
        unreadable: list[UnreadableClip] = []
        for candidate in self._candidates(request):
            try:
                frames = self.reader.read(
                    int(self.table.video[candidate.segment]), candidate.start_sample
                )
                return LoadedClip(self._view(frames, candidate), candidate, tuple(unreadable))
            except VideoError as error:
                unreadable.append(self._unreadable(candidate, error))
            except TspError as error:  # not the video's fault, such as a damaged cache
                return LoadedClip(None, request, (self._unreadable(candidate, error),), True)
        fatal = not self.skip or self.plan.training
        return LoadedClip(None, request._replace(weight=0.0), tuple(unreadable), fatal)

    def _candidates(self, request: ClipRequest) -> Iterator[ClipRequest]:
        yield request
        if self.skip and self.plan.training:
            yield from self.plan.stand_ins(request)

    def _unreadable(self, request: ClipRequest, error: TspError) -> UnreadableClip:
        reason = error.detail if isinstance(error, VideoError) else str(error)
        return UnreadableClip(self._video(request), self.name(request), reason)

    def _video(self, request: ClipRequest) -> str:
        return self.table.filenames[self.table.video[request.segment]]

    def name(self, request: ClipRequest) -> str:
        """A clip's name for people: its video and second."""
        start_s = request.start_sample / float(self.plan.sampling.frame_rate)
        return f"{self._video(request)} at {start_s:.2f} s"

    def _view(self, frames: npt.NDArray[np.uint8], request: ClipRequest) -> npt.NDArray[np.uint8]:
        height, width = frames.shape[1:3]
        if request.flip < 0:
            top, left = self.preprocessing.frame_spec().crop_origin(height, width)
            draw = ClipDraw(flip=False, top=top, left=left)
        else:
            draw = self.preprocessing.draw(
                height, width, (request.flip, request.row, request.column)
            )
        if draw.flip:
            frames = frames[:, :, ::-1]
        rows, columns = self.preprocessing.crop
        # A copy even where nothing is cropped: the reader's next clip overwrites this one.
        return frames[:, draw.top : draw.top + rows, draw.left : draw.left + columns].copy()

    def collate(self, items: Sequence[LoadedClip]) -> ClipBatch:
        """A batch of what :meth:`__getitem__` returned; what could not be read is black."""
        requests = [item.request for item in items]
        segments = np.array([request.segment for request in requests])
        videos = self.table.video[segments]
        shape = (self.plan.sampling.clip_length, *self.preprocessing.crop, 3)
        pixels = torch.zeros((len(items), *shape), dtype=torch.uint8)
        for place, item in enumerate(items):
            if item.pixels is not None:
                pixels[place] = torch.from_numpy(item.pixels)
        return ClipBatch(
            pixels=pixels,
            action=torch.from_numpy(self.table.action[segments]),
            region=torch.from_numpy(self.table.region[segments]),
            gvf=None if self.gvf is None else torch.from_numpy(self.gvf[videos]),
            weight=torch.tensor([request.weight for request in requests]),
            names=[self.name(request) for request in requests],
            unreadable=[c for item in items if not item.fatal for c in item.unreadable[:1]],
            failed=[item.unreadable[-1] for item in items if item.fatal],
        )


def choose_workers(wanted: int, processes_here: int) -> int:
    """Loader processes of one device: as asked for, or this device's share of the cores."""
    if wanted >= 0:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(_MAX_WORKERS, (cores or 1) // max(processes_here, 1)))


@dataclass
class BatchFeed:
    """Batches in the order of their requests, and how long the caller waited for them.

    Attributes:
        loader: Reads clips.
        workers: Loader processes; 0 reads in this process.
        pin: Whether batches go to page-locked memory.
        waited_s: Seconds spent waiting for batches so far.
    """

    loader: ClipLoader
    workers: int = 0
    pin: bool = False
    waited_s: float = 0.0
    _torch_loader: torch.utils.data.DataLoader[ClipBatch] | None = field(default=None, repr=False)
    _requests: _Requests | None = field(default=None, repr=False)

    def __call__(self, requests: Iterable[list[ClipRequest]]) -> Iterator[ClipBatch]:
        """The batches of some requests.

        Raises:
            TrainingError: If a loader process dies.
        """
        batches = self._iterate(requests)
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                raise TrainingError(
                    f"A loader process ended unexpectedly: {first_line(error)}",
                    remedy="Give fewer --workers if memory ran out, then --resume.",
                ) from error
            self.waited_s += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _iterate(self, requests: Iterable[list[ClipRequest]]) -> Iterator[ClipBatch]:
        if self.workers == 0:
            for wanted in requests:
                batch = self.loader.collate([self.loader[request] for request in wanted])
                yield batch.pin_memory() if self.pin else batch
            return
        if self._torch_loader is None:
            self._requests = _Requests()
            self._torch_loader = torch.utils.data.DataLoader(
                # Its stubs know datasets by number alone, not by request.
                cast(Any, self.loader),
                batch_sampler=cast(Any, self._requests),
                num_workers=self.workers,
                collate_fn=cast(Any, self.loader.collate),
                prefetch_factor=_PREFETCHED_BATCHES,
                pin_memory=self.pin,
                persistent_workers=True,
                worker_init_fn=_start_worker,
                # Forked children of a process that has threads or CUDA may hang.
                multiprocessing_context=_LoaderContext(),
            )
        assert self._requests is not None
        self._requests.batches = requests
        with _starting_processes():
            batches = iter(self._torch_loader)
        yield from batches

    def close(self) -> None:
        """End the loader processes."""
        self._torch_loader = None


class _LoaderPopen(popen_spawn_posix.Popen):
    """Loader processes ignore SIGTERM, so ending one takes SIGKILL."""

    def terminate(self) -> None:
        self.kill()


class _LoaderProcess(SpawnProcess):
    @staticmethod
    def _Popen(process: Any) -> _LoaderPopen:
        return _LoaderPopen(process)


class _LoaderContext(SpawnContext):
    Process = _LoaderProcess  # type: ignore[assignment]


@contextmanager
def _starting_processes() -> Iterator[None]:
    """For starting loader processes.

    Signals that a terminal or a scheduler sends to all processes of a run are for the training
    process alone to handle; its children inherit that they are blocked from their first moment on.
    Python's own -c puts the current folder first on the path, where a stray signal.py would be run;
    3.10 knows no other way than the environment to keep them from it.
    """
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # A process of Python's own, which unblocks signals when it is started.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Requests:
    """The batch sampler that torch's loader iterates afresh for every epoch."""

    def __init__(self) -> None:
        self.batches: Iterable[list[ClipRequest]] = ()

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        return iter(self.batches)


def _start_worker(worker: int) -> None:
    """One thread each: the loader processes themselves are the parallelism."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
