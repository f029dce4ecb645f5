"""Which clip is seen when: every draw is a function of (seed, epoch, sample), and of nothing else.

No generator is carried along. A counter-based one (Philox) is keyed anew for each draw, so that any
clip of any epoch can be had at random, in any process: loader workers cannot share jitter, a run
that resumes after a kill sees what it would have seen, and two processes see together exactly what
one with their joint batch sees. (The official code restarts one generator from one seed in every
worker, rank and epoch, so that these repeat each other's jitter.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tspcli.pretraining.training_segments import TrainingSegments
from tspcli.sampling import Sampling
from tspcli.sampling.clock import grid_tick

_ORDER_STREAM, _CLIP_STREAM, _STAND_IN_STREAM = 1, 2, 16
_OWN_STAND_INS, _STAND_INS = 2, 24
"""Stand-ins drawn from the segment itself, and altogether."""
_TO_UNIT = 2.0**-53


class ClipRequest(NamedTuple):
    """One clip of one epoch.

    Attributes:
        sample: Index of the sample in the epoch's table, ``turn * n_segments + segment``.
        segment: Index of the segment.
        start_sample: First frame of the clip, in samples of the video at the clips' frame rate.
        flip, row, column: Three numbers from [0, 1) that decide on mirroring and on the crop; -1
            for the centre, unmirrored.
        weight: 1, or 0 for a clip that only keeps an otherwise empty batch company.
        epoch: Of the clip.
    """

    sample: int
    segment: int
    start_sample: int
    flip: float
    row: float
    column: float
    weight: float = 1.0
    epoch: int = 0


def _units(seed: int, stream: int, epoch: int, index: int, count: int) -> npt.NDArray[np.float64]:
    """``count`` numbers from [0, 1); their raw bits are the same in every version of numpy."""
    # Lists with large numbers in them would become floating point, and many seeds one.
    key = np.array([seed, stream], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=[0, epoch, index, 0])
    raw: npt.NDArray[np.uint64] = bits.random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def epoch_order(n_samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch of training sees its samples, shape (n_samples,)."""
    return np.argsort(_units(seed, _ORDER_STREAM, epoch, 0, n_samples), kind="stable")


@dataclass(frozen=True)
class ClipPlan:
    """The clips of one split for every epoch.

    Attributes:
        table: The segments.
        sampling: Frame rate, clip length and grid.
        clips_per_segment: Clips drawn from each segment and epoch.
        seed: Of order, jitter, mirroring and crops; 0 to 2**64 - 1.
        training: Whether there is chance at all. Validation takes clips evenly spaced, in order.
    """

    table: TrainingSegments
    sampling: Sampling
    clips_per_segment: int
    seed: int
    training: bool

    @property
    def n_samples(self) -> int:
        """Clips of an epoch."""
        return len(self.table) * self.clips_per_segment

    def request(self, epoch: int, sample: int, weight: float = 1.0) -> ClipRequest:
        """One clip, whatever came before it."""
        turn, segment = divmod(sample, len(self.table))
        if self.training:
            ratio, flip, row, column = _units(self.seed, _CLIP_STREAM, epoch, sample, 4).tolist()
        else:
            last = self.clips_per_segment - 1
            ratio, flip, row, column = (turn / last if last else 0.0), -1.0, -1.0, -1.0
        start = self._start_sample(segment, ratio)
        return ClipRequest(sample, segment, start, flip, row, column, weight, epoch)

    def stand_ins(self, request: ClipRequest) -> Iterator[ClipRequest]:
        """Clips to take in a clip's place if it cannot be read, in this order.

        The first come from its own segment, the others from any of the same class, so that what the
        devices know of each other's batches stays true. Each is a function of (seed, epoch, sample)
        and its number alone.
        """
        same = np.flatnonzero(self.table.action == self.table.action[request.segment])
        for number in range(_STAND_INS):
            stream = _STAND_IN_STREAM + number
            draws = _units(self.seed, stream, request.epoch, request.sample, 2)
            ratio, place = draws.tolist()
            segment = request.segment
            if number >= _OWN_STAND_INS:
                segment = int(same[int(place * len(same))])
            yield request._replace(segment=segment, start_sample=self._start_sample(segment, ratio))

    def last_starts(self) -> npt.NDArray[np.int64]:
        """The latest start that a clip of each video can have, in samples, shape (n_videos,)."""
        last = np.zeros(len(self.table.filenames), dtype=np.int64)
        for segment, video in enumerate(self.table.video):
            last[video] = max(last[video], self._start_sample(segment, 1.0))
        return last

    def start_s(self, segment: int, ratio: float) -> float:
        """Start of a clip in seconds: ``ratio`` of the way through those that the segment holds."""
        table, clip_s = self.table, self.sampling.clip_length / float(self.sampling.frame_rate)
        start_s, end_s = float(table.start_s[segment]), float(table.end_s[segment])
        return start_s + ratio * (end_s - start_s - clip_s)

    def _start_sample(self, segment: int, ratio: float) -> int:
        """The nearest sample at which a complete clip of the video begins."""
        from fractions import Fraction

        nearest = int(self.start_s(segment, ratio) * float(self.sampling.frame_rate) + 0.5)
        duration_s = Fraction(float(self.table.duration_s[segment]))
        n_samples = self.sampling.n_samples(grid_tick(duration_s, self.sampling.grid_rate))
        return max(0, min(nearest, n_samples - self.sampling.clip_length))

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The samples of an epoch in the order in which all devices together see them."""
        if self.training:
            return epoch_order(self.n_samples, self.seed, epoch)
        return np.arange(self.n_samples)


@dataclass(frozen=True)
class BatchPlan:
    """How the devices of a run share an epoch of training.

    Step s takes the next ``batch_size * world_size`` samples of the epoch's order, and each device
    a contiguous part of them. The last step takes what is left, shared as evenly as possible.

    Attributes:
        clips: The clips.
        batch_size: Clips a step on each device.
        rank, world_size: Which device of how many.
    """

    clips: ClipPlan
    batch_size: int
    rank: int = 0
    world_size: int = 1

    @property
    def n_steps(self) -> int:
        """Steps of an epoch, the same on every device."""
        return -(-self.clips.n_samples // (self.batch_size * self.world_size))

    def samples(self, order: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.int64]:
        """The samples of all devices in one step."""
        size = self.batch_size * self.world_size
        return order[step * size : (step + 1) * size]

    def batch(self, epoch: int, order: npt.NDArray[np.int64], step: int) -> list[ClipRequest]:
        """This device's clips of one step; never empty.

        A device for which nothing is left in the last step gets one clip of weight 0.
        """
        together = self.samples(order, step)
        first, last = (len(together) * r // self.world_size for r in (self.rank, self.rank + 1))
        if first == last:
            return [self.clips.request(epoch, int(together[0]), weight=0.0)]
        return [self.clips.request(epoch, int(sample)) for sample in together[first:last]]

    def counts(self, order: npt.NDArray[np.int64], step: int) -> tuple[int, int]:
        """(foreground clips, clips) of all devices in one step: what the losses are means over."""
        together = self.samples(order, step)
        labels = self.clips.table.action[together % len(self.clips.table)]
        return int((labels >= 0).sum()), len(together)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[ClipRequest]]:
        """This device's batches of an epoch from a step on."""
        order = self.clips.order(epoch)
        for step in range(first_step, self.n_steps):
            yield self.batch(epoch, order, step)


@dataclass(frozen=True)
class ValidationPlan:
    """How the devices of a run share a validation: every clip once, on one of them.

    Attributes:
        clips: The clips.
        batch_size: Clips a batch.
        rank, world_size: Which device of how many.
    """

    clips: ClipPlan
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        own = self._own()
        for start in range(0, len(own), self.batch_size):
            yield [self.clips.request(0, s) for s in own[start : start + self.batch_size]]

    @property
    def n_clips(self) -> int:
        """Clips on this device."""
        return len(self._own())

    def _own(self) -> range:
        return range(self.rank, self.clips.n_samples, self.world_size)
