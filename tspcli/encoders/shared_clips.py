"""Overlapping clips of one video, encoded without computing their common parts twice.

The first layers produce the same activations at a given time of the video for every clip that
contains it, except near the clip's ends, where the padding of the temporal convolutions has an
effect. The stem and the first stage therefore run once over the complete series of frames, and
per clip only over its ends; then the clips are assembled and encoded further one by one. Nothing
is approximated.

Every temporal convolution lets the padding reach one more time step at either end: after
r2plus1d_18's stem and first stage it has reached 5 of 16 at each end, after r2plus1d_34's 7.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tspcli.encoders.fused import FastBasicBlock, FastVideoResNet, FoldedConv, mean_over_positions

_CLIPS_AT_ONCE = {"cpu": 4, "accelerator": 32}
"""Clips whose ends are computed together: enough for full speed, and few enough for memory."""


class _Unit(NamedTuple):
    """One temporal convolution and its context.

    Attributes:
        spatial: The convolution within frames before it, if it is factorised.
        temporal: Kernel 3, stride 1, one position of padding at either end.
        opens, closes: Whether it is the first or the last convolution of a residual block.
    """

    spatial: FoldedConv | None
    temporal: FoldedConv
    opens: bool = False
    closes: bool = False


class _Level(NamedTuple):
    """A unit's activations for the complete series, which no clip's padding affects.

    Attributes:
        inputs: Those of its temporal convolution, (times, H, W, C); time i is time ``lost + i`` of
            the series.
        shortcut: The inputs of the residual block that begins here, if one does.
    """

    inputs: Tensor
    shortcut: Tensor | None


class SharedVideoResNet(nn.Module):
    """A :class:`FastVideoResNet` that encodes all clips of a series of frames.

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
        """Times at either end of a clip that its padding has reached after the shared layers."""
        return len(self._units)

    @property
    def largest_stride(self) -> int:
        """At larger strides, copying the common parts costs as much as it saves."""
        n_shared = len(self._fast.blocks) - len(self._rest)
        return 4 if 4 * n_shared >= len(self._fast.blocks) else 2

    def forward(self, frames: Tensor, clip_length: int, stride: int) -> Tensor:
        """Features of all clips of a series.

        Args:
            frames: (S, 3, h, w), prepared; S is ``(clips - 1) * stride + clip_length``.
            clip_length: Frames per clip, more than twice :attr:`lost`.
            stride: Frames between the starts of neighbouring clips.

        Returns:
            (clips, D).
        """
        n_clips = (len(frames) - clip_length) // stride + 1
        series = frames.movedim(1, -1).contiguous()
        levels, common = self._series(series)
        rows = []
        at_once = _CLIPS_AT_ONCE["cpu" if frames.device.type == "cpu" else "accelerator"]
        for first in range(0, n_clips, at_once):
            # Made on the device: copying them there would wait for it.
            clips = torch.arange(first, min(first + at_once, n_clips), device=frames.device)
            x = self._clips(series, levels, common, clips * stride, clip_length)
            for block in self._rest:
                x = block(x)
            rows.append(mean_over_positions(x))
        return torch.cat(rows)

    def _series(self, x: Tensor) -> tuple[list[_Level], Tensor]:
        """The shared layers over the complete series, without any padding in time."""
        levels: list[_Level] = []
        shortcut: Tensor | None = None
        for unit in self._units:
            if unit.opens:
                shortcut = x
            inputs = x if unit.spatial is None else unit.spatial(x[None])[0]
            levels.append(_Level(inputs, shortcut if unit.opens else None))
            added = None
            if unit.closes:
                assert shortcut is not None
                # The convolution overwrites it, but the clips' ends still need it.
                added = shortcut[2:-2].clone()[None]
            x = unit.temporal(inputs[None], shortcut=added, pad_times=False)[0]
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
            joined = _joined(ends, level.inputs, starts, length, lost, zeros=1)
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
    """The first and the last times of some clips, with two common times on the inner side.

    Args:
        ends: (2 B, lost, H, W, C): the times that the padding has reached; None if ``lost`` is 0.
        common: The other times of the series; time i is time ``lost + i`` of the series.
        starts: First frames of the clips in the series.
        length: Frames per clip.
        lost: Times at either end that the padding has reached.
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
    """The temporal convolutions of the stem and the first stage that keep every time step."""
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
