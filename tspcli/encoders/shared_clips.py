"""Overlapping clips of one video, encoded without computing twice what they have in common.

A clip's first layers see the frames of neighbouring clips too. What they compute at a time of the
video is the same for every clip that holds it, except near the clip's ends: there the padding of
the temporal convolutions, one more time with every layer, has been seen. The stem and the first
stage are therefore run once over the whole series of frames, and for each clip over its ends alone;
then the clips are put together and go on one by one. Nothing is approximated.

Every temporal convolution lets one more time at either end see the padding: after r2plus1d_18's
stem and first stage 5 of 16 have at each end, after r2plus1d_34's 7.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tspcli.encoders.fused import FastBasicBlock, FastVideoResNet, FoldedConv, mean_over_positions

_CLIPS_AT_ONCE = 4
"""Clips whose ends are computed together: enough for full speed, few for memory."""


class _Unit(NamedTuple):
    """One temporal convolution and what belongs to it.

    Attributes:
        spatial: The convolution within frames before it, if it is a factorised one.
        temporal: Kernel 3, stride 1, one position of padding at either end.
        opens, closes: Whether it is the first, and the last, convolution of a residual block.
    """

    spatial: FoldedConv | None
    temporal: FoldedConv
    opens: bool = False
    closes: bool = False


class _Level(NamedTuple):
    """What a unit computed for the whole series, where no clip's padding is seen.

    Attributes:
        seen: What its temporal convolution saw, (times, H, W, C); time i of it is ``lost + i``
            of the series.
        shortcut: Where a residual block begins, what the block was given.
    """

    seen: Tensor
    shortcut: Tensor | None


class SharedVideoResNet(nn.Module):
    """A :class:`FastVideoResNet` that takes the clips of a series of frames.

    Args:
        fast: The network; its convolutions are used, not copied.
    """

    def __init__(self, fast: FastVideoResNet) -> None:
        super().__init__()
        self._fast = fast
        self._units = _shared_units(fast)
        n_blocks = sum(unit.closes for unit in self._units)
        self._rest = [cast(FastBasicBlock, block) for block in fast.blocks[n_blocks:]]

    @property
    def lost(self) -> int:
        """Times at either end of a clip that have seen its padding after the shared layers."""
        return len(self._units)

    @property
    def largest_stride(self) -> int:
        """Beyond it, copying what clips have in common costs what it saves."""
        n_shared = len(self._fast.blocks) - len(self._rest)
        return 4 if 4 * n_shared >= len(self._fast.blocks) else 2

    def forward(self, frames: Tensor, clip_length: int, stride: int) -> Tensor:
        """Features of all clips of a series.

        Args:
            frames: (S, 3, h, w), prepared; S is ``(clips - 1) * stride + clip_length``.
            clip_length: Frames a clip, more than twice :attr:`lost`.
            stride: Frames from one clip's first to the next one's.

        Returns:
            (clips, D).
        """
        n_clips = (len(frames) - clip_length) // stride + 1
        series = frames.movedim(1, -1).contiguous()
        levels, common = self._series(series)
        rows = []
        for first in range(0, n_clips, _CLIPS_AT_ONCE):
            starts = torch.arange(first, min(first + _CLIPS_AT_ONCE, n_clips)) * stride
            x = self._clips(series, levels, common, starts.to(frames.device), clip_length)
            for block in self._rest:
                x = block(x)
            rows.append(mean_over_positions(x))
        return torch.cat(rows)

    def _series(self, x: Tensor) -> tuple[list[_Level], Tensor]:
        """The shared layers over the whole series, without any padding in time."""
        levels: list[_Level] = []
        shortcut: Tensor | None = None
        for unit in self._units:
            if unit.opens:
                shortcut = x
            seen = x if unit.spatial is None else unit.spatial(x[None])[0]
            levels.append(_Level(seen, shortcut if unit.opens else None))
            added = None
            if unit.closes:
                assert shortcut is not None
                # Overwritten by the convolution, while the clips' ends still need it.
                added = shortcut[2:-2].clone()[None]
            x = unit.temporal(seen[None], shortcut=added, pad_times=False)[0]
        return levels, x

    def _clips(
        self, series: Tensor, levels: list[_Level], common: Tensor, starts: Tensor, length: int
    ) -> Tensor:
        """Some clips after the shared layers, (B, clip_length, H, W, C)."""
        count = len(starts)
        ends: Tensor | None = None  # (2 B, lost, H, W, C): all beginnings, then all ends.
        shortcut: Tensor | None = None
        for lost, (unit, level) in enumerate(zip(self._units, levels, strict=True)):
            if unit.opens:
                assert level.shortcut is not None
                shortcut = _joined(ends, level.shortcut, starts, length, lost, zeros=0)
            if ends is not None and unit.spatial is not None:
                ends = unit.spatial(ends)
            joined = _joined(ends, level.seen, starts, length, lost, zeros=1)
            added = shortcut if unit.closes else None
            ends = unit.temporal(joined, shortcut=added, pad_times=False)
        assert ends is not None
        inner = length - 2 * self.lost
        out = common.new_empty((count, length, *common.shape[1:]))
        out[:, : self.lost] = ends[:count]
        out[:, self.lost : self.lost + inner] = common[_positions(starts, 0, inner)]
        out[:, self.lost + inner :] = ends[count:]
        return out


def _joined(
    ends: Tensor | None, common: Tensor, starts: Tensor, length: int, lost: int, zeros: int
) -> Tensor:
    """The first and the last times of some clips, with two common ones on the inner side.

    Args:
        ends: (2 B, lost, H, W, C): the times that have seen the padding; None if ``lost`` is 0.
        common: The times of the series that have not; time i is ``lost + i`` of the series.
        starts: First frames of the clips in the series.
        length: Frames a clip.
        lost: See above.
        zeros: Times of padding on the outer side.

    Returns:
        (2 B, zeros + lost + 2, H, W, C).
    """
    count = len(starts)
    outer = zeros + lost
    out = common.new_empty((2 * count, outer + 2, *common.shape[1:]))
    first, last = out[:count], out[count:]
    if zeros:
        first[:, :zeros] = 0
        last[:, lost + 2 :] = 0
    if ends is not None:
        first[:, zeros:outer] = ends[:count]
        last[:, 2 : 2 + lost] = ends[count:]
    first[:, outer:] = common[_positions(starts, 0, 2)]
    last[:, :2] = common[_positions(starts, length - 2 * lost - 2, 2)]
    return out


def _positions(starts: Tensor, offset: int, count: int) -> Tensor:
    return starts[:, None] + offset + torch.arange(count, device=starts.device)


def _shared_units(fast: FastVideoResNet) -> list[_Unit]:
    """The stem's and the first stage's temporal convolutions, as far as they keep every time."""
    units = [_unit([cast(FoldedConv, conv) for conv in fast.stem])]
    for module in fast.blocks:
        block = cast(FastBasicBlock, module)
        convs = [cast(FoldedConv, conv) for conv in (*block.before, block.last)]
        if block.downsample is not None or any(not conv.keeps_times for conv in convs):
            break
        half = len(convs) // 2
        units.append(_unit(convs[:half])._replace(opens=True))
        units.append(_unit(convs[half:])._replace(closes=True))
    return units


def _unit(convs: list[FoldedConv]) -> _Unit:
    return _Unit(convs[0] if len(convs) == 2 else None, convs[-1])


__all__ = ["SharedVideoResNet"]
