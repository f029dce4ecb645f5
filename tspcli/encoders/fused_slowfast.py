"""SlowFast in the form that runs fastest: folded convolutions on channels-last activations."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tspcli.encoders.backbones.slowfast import (
    ResBlock,
    ResStage,
    SlowFast,
    Stage,
    Stem,
    pooled,
    slow_frames,
)
from tspcli.encoders.fused import FoldedConv


class FastStem(nn.Module):
    """A :class:`Stem` of a folded convolution."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.conv = FoldedConv(stem.conv, stem.norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, 3) to (B, T, H/4, W/4, C)."""
        x = self.conv(x)
        images = F.max_pool2d(x.flatten(0, 1).movedim(-1, 1), 3, 2, 1)
        return images.movedim(1, -1).contiguous().unflatten(0, x.shape[:2])


class FastResBlock(nn.Module):
    """A :class:`ResBlock` of folded convolutions."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        branch = block.branch2
        self.a = FoldedConv(branch.conv_a, branch.norm_a)
        self.b = FoldedConv(branch.conv_b, branch.norm_b)
        self.c = FoldedConv(branch.conv_c, branch.norm_c)
        self.shortcut: FoldedConv | None = None
        if block.branch1_conv is not None and block.branch1_norm is not None:
            self.shortcut = FoldedConv(block.branch1_conv, block.branch1_norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H', W', C'); ``x`` may be overwritten."""
        # The last convolution adds to the shortcut, x itself where the size stays.
        between = self.b(self.a(x))
        shortcut = x if self.shortcut is None else self.shortcut(x, relu=False)
        return cast(Tensor, self.c(between, shortcut=shortcut))


class FastStage(nn.Module):
    """A :class:`Stage` of folded convolutions."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.slow, self.fast = (_fast_pathway(path) for path in stage.multipathway_blocks)
        fusion = stage.multipathway_fusion
        self.fusion = None if fusion is None else FoldedConv(fusion.conv_fast_to_slow, fusion.norm)

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T/4, H, W, C) and (B, T, H, W, C/8) to both after the stage."""
        slow, fast = self.slow(slow), self.fast(fast)
        if self.fusion is not None:
            slow = torch.cat([slow, self.fusion(fast)], -1)
        return slow, fast


def _fast_pathway(path: nn.Module) -> nn.Module:
    if isinstance(path, Stem):
        return FastStem(path)
    blocks = cast(ResStage, path).res_blocks
    return nn.Sequential(*(FastResBlock(cast(ResBlock, block)) for block in blocks))


class FastSlowFast(nn.Module):
    """A :class:`SlowFast` of folded convolutions."""

    def __init__(self, plain: SlowFast) -> None:
        super().__init__()
        self.stages = nn.ModuleList(FastStage(cast(Stage, stage)) for stage in plain.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D) float32."""
        fast = x.movedim(1, -1).contiguous()
        slow = fast[:, slow_frames(fast.shape[1])]
        for stage in self.stages:
            slow, fast = stage(slow, fast)
        return torch.cat([pooled(slow.movedim(-1, 1)), pooled(fast.movedim(-1, 1))], 1)
