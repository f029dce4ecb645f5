"""The ViT of InternVideo2 (Wang et al., ECCV 2024): 1B, and S, B and L distilled from it.

Tokens are single frames' squares of 14 x 14 pixels, behind a class token, with learned positions.
A feature is the mean of the last block's tokens without the class token, as OpenTAD's author made
them (OpenTAD issue 49); what files hold behind that (``clip_projector``, ``fc_norm``, and ``head``,
whose input is not this feature) is left out.

GELU is the tanh approximation, as in the fused layers that the weights were trained with; the
original's fallback without them computes the exact one, which changes rows by 3e-4 of their scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tspcli.encoders.backbones import BackboneSpec
from tspcli.encoders.backbones.vit_parts import Mlp, attend, draw_as_transformers, project
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec

EPSILON = 1e-6
PATCH = 14
SIZE = 224
FRAMES = 8
_BEHIND_THE_FEATURE = (
    "clip_projector.",
    "fc_norm.",
    "head.",
    # What the distilled networks learned by.
    "clip_decoder.",
    "final_clip_decoder.",
    "clip_pos_embed",
)


class RmsNorm(nn.RMSNorm):
    """Computed in float32, whatever the precision around it."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D) float32."""
        return super().forward(x.float())


class Attention(nn.Module):
    """Self-attention without biases of queries, keys and values; the first two are normed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = RmsNorm(width)
        self.k_norm = RmsNorm(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        query, key, value = project(self.qkv, x)
        mixed = attend(self.q_norm(query), self.k_norm(key), value, self.heads)
        return cast(Tensor, self.proj(mixed))


class LayerScale(nn.Module):
    """One factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and a two-layer network, each normed before, scaled after, beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = RmsNorm(width)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = RmsNorm(width)
        self.mlp = Mlp(width, hidden, approximate="tanh")
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return cast(Tensor, x + self.ls2(self.mlp(self.norm2(x))))


class PatchEmbed(nn.Module):
    """Squares of pixels to tokens, by one convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        kernel = (1, PATCH, PATCH)
        self.proj = nn.Conv3d(3, width, kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D, T, h, w)."""
        return cast(Tensor, self.proj(x))


class InternVideo2(nn.Module):
    """The network up to its last block.

    Clips of another length or size than the positions were learned for are taken: positions are
    interpolated, linearly in time and bicubically in space, as the original does it.

    Args:
        width: D, of tokens and features.
        depth: Number of blocks.
        heads: Of each attention.
        hidden: Width inside the blocks' two-layer networks.
        size: Height and width of the frames whose positions are learned.
        frames: Per clip, likewise.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        *,
        size: int = SIZE,
        frames: int = FRAMES,
    ) -> None:
        super().__init__()
        self.grid = (frames, size // PATCH, size // PATCH)
        times, rows, columns = self.grid
        self.patch_embed = PatchEmbed(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, times * rows * columns + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.Identity()
        draw_as_transformers(self)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        tokens = self.patch_embed(x)
        positions = self._positions_on(tuple(tokens.shape[2:]))
        first = (self.cls_token + positions[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, tokens.flatten(2).transpose(1, 2) + positions[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.norm(x)[:, 1:].mean(1))

    def _positions_on(self, grid: tuple[int, ...]) -> Tensor:
        """(1, 1 + N, D), the class token's first."""
        if grid == self.grid:
            return self.pos_embed
        first, others = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        planes = others.unflatten(1, self.grid)[0].permute(3, 0, 1, 2)
        if grid[0] != self.grid[0]:
            # (D, t, h, w); interpolation in time runs over the last axis of three.
            lines = planes.flatten(2).transpose(1, 2)
            lines = F.interpolate(lines, grid[0], mode="linear", align_corners=False)
            planes = lines.transpose(1, 2).unflatten(2, self.grid[1:])
        if grid[1:] != self.grid[1:]:
            planes = F.interpolate(
                planes.transpose(0, 1), grid[1:], mode="bicubic", align_corners=False
            ).transpose(0, 1)
        return torch.cat([first, planes.flatten(1).T[None]], 1)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors up to the last block, without the prefixes of its training programs.

    None if two of them would have one name.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        own = name.removeprefix("backbone.").removeprefix("encoder.")
        if own.startswith(_BEHIND_THE_FEATURE):
            continue
        if own in named:
            return None
        named[own] = tensor
    return named


def _spec(
    name: str, keys: str, width: int, depth: int, heads: int, hidden: int | None = None
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        keys=keys,
        build=lambda: InternVideo2(width, depth, heads, hidden or 4 * width),
        feature_dim=width,
        preprocessing=Preprocessing(
            resize=ResizeSpec(short_side=SIZE),
            crop=(SIZE, SIZE),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        # Every second frame of windows of 16.
        sampling=Sampling.native(FRAMES, 4, offsets=tuple(range(0, 2 * FRAMES, 2))),
        layer="norm",
        # Of all tokens but the first.
        pooling="own",
        blocks=("blocks.*",),
        stem=("patch_embed.",),
        convert=from_published,
    )


INTERNVIDEO2_S = _spec("internvideo2_s", "459714aed21a895b", 384, 12, 6)
INTERNVIDEO2_B = _spec("internvideo2_b", "1c898299b2925118", 768, 12, 12)
INTERNVIDEO2_L = _spec("internvideo2_l", "dafc9df25947bc68", 1024, 24, 16)
INTERNVIDEO2_1B = _spec("internvideo2_1b", "def521bc8c92580c", 1408, 40, 16, hidden=6144)
