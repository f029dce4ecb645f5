"""The ViT of VideoMAE (Tong et al., NeurIPS 2022), VideoMAE v2 and InternVideo.

Tokens are tubes of 2 frames x 16 x 16 pixels (g: 14 x 14). There is no class token; positions are
a fixed table of sines and cosines over the flattened tokens, which files of weights do not hold.
Queries and values have a bias, keys have none. A feature is the layer-normed mean of all tokens.

Numbers of heads are those of the original code: configurations on model hubs state 16 for the
small network, which has 6.
"""

from __future__ import annotations

import re
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
TUBE = 2
FRAMES = 16
SIZE = 224


def position_table(tokens: int, width: int) -> Tensor:
    """Sines (even channels) and cosines (odd ones) of positions, (1, tokens, width) float32."""
    channel = torch.arange(width, dtype=torch.float64)
    rate = 10000.0 ** (2 * torch.div(channel, 2, rounding_mode="floor") / width)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


class Attention(nn.Module):
    """Self-attention with a bias of queries and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = project(self.qkv, x, bias)
        return cast(Tensor, self.proj(attend(query, key, value, self.heads)))


class Block(nn.Module):
    """Attention and a two-layer network, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Tubes of pixels to tokens, by one convolution."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        kernel = (TUBE, patch, patch)
        self.proj = nn.Conv3d(3, width, kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D, t, h, w)."""
        return cast(Tensor, self.proj(x))


class VideoVit(nn.Module):
    """The network up to the classification layer.

    Frames of other sizes than ``size`` are taken: the positions of each time are then interpolated
    (bicubic, corners not aligned), as OpenTAD does it.

    Args:
        width: D, of tokens and features.
        depth: Number of blocks.
        heads: Of each attention.
        patch: Side of a token in pixels.
        hidden: Width inside the blocks' two-layer networks.
        size: Height and width of the frames whose positions the table holds.
        frames: Per clip.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        hidden: int,
        *,
        size: int = SIZE,
        frames: int = FRAMES,
    ) -> None:
        super().__init__()
        self.grid = (frames // TUBE, size // patch, size // patch)
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.Identity()
        self.fc_norm = nn.LayerNorm(width, eps=EPSILON)
        times, rows, columns = self.grid
        self.register_buffer(
            "positions", position_table(times * rows * columns, width), persistent=False
        )
        draw_as_transformers(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        tokens = self.patch_embed(x)
        x = tokens.flatten(2).transpose(1, 2) + self._positions_on(tuple(tokens.shape[2:]))
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.fc_norm(self.norm(x).mean(1)))

    def _positions_on(self, grid: tuple[int, ...]) -> Tensor:
        """(1, N, D), the table interpolated to another height and width."""
        table = cast(Tensor, self.positions)
        if grid == self.grid:
            return table
        planes = table.unflatten(1, self.grid)[0].permute(0, 3, 1, 2)
        planes = F.interpolate(planes, grid[1:], mode="bicubic", align_corners=False)
        return planes.permute(0, 2, 3, 1).flatten(0, 2)[None]


_PUBLISHED_NAMES = (
    # transformers
    (r"^videomae\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.query\.bias$", ".q_bias"),
    (r"\.value\.bias$", ".v_bias"),
    (r"^classifier\.", "head."),
    # mmaction2
    (r"^backbone\.", ""),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
    (r"^cls_head\.fc_cls\.", "head."),
)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The layouts of transformers, mmaction2 and fused biases as that of the original code.

    Nothing that is missing is made up; what the network has no place for stays in, so that it is
    reported: a bias of keys other than zero, or positions other than the table's.

    Returns:
        The tensors, or None if two of them would have one name.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in _PUBLISHED_NAMES:
            name = re.sub(pattern, replacement, name)
        if name in named:
            return None
        named[name] = tensor
    for name in [n for n in named if n.endswith(".attn.query.weight")]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in named for part in parts):
            fused = torch.cat([named.pop(part) for part in parts])
            named[name.replace(".query.", ".qkv.")] = fused
    for name in [n for n in named if n.endswith(".attn.qkv.bias")]:
        query, key, value = named[name].chunk(3)
        if not key.any():
            del named[name]
            named[name.replace(".qkv.bias", ".q_bias")] = query
            named[name.replace(".qkv.bias", ".v_bias")] = value
    for name in [n for n in named if n.endswith(".attn.key.bias")]:
        if not named[name].any():
            del named[name]
    positions = named.get("pos_embed")
    if positions is not None and positions.ndim == 3:
        table = position_table(*positions.shape[1:])
        if torch.allclose(positions.float(), table, rtol=0, atol=1e-3):
            del named["pos_embed"]
    return named


_IMAGENET = Preprocessing(
    resize=ResizeSpec(short_side=SIZE),
    crop=(SIZE, SIZE),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
# VideoMAE v2's extract_tad_feature.py squashes frames to a square and does not normalise them.
_SQUASHED = Preprocessing(
    resize=ResizeSpec(height=SIZE, width=SIZE),
    crop=(SIZE, SIZE),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def _spec(
    name: str,
    keys: str,
    width: int,
    depth: int,
    heads: int,
    patch: int = 16,
    hidden: int | None = None,
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        keys=keys,
        build=lambda: VideoVit(width, depth, heads, patch, hidden or 4 * width),
        feature_dim=width,
        preprocessing=_SQUASHED if "_v2_" in name else _IMAGENET,
        sampling=Sampling.native(FRAMES, 4),
        fixed_clip_length=True,
        layer="norm",
        # Of the mean of the tokens there is a layer norm.
        pooling="own",
        blocks=("blocks.*",),
        stem=("patch_embed.",),
        plain_head="head",
        key_prefixes=("backbone.", "encoder."),
        convert=from_published,
    )


VIDEOMAE_S = _spec("videomae_s", "2d684f30362b2870", 384, 12, 6)
VIDEOMAE_B = _spec("videomae_b", "5e3477a86e193ec4", 768, 12, 12)
VIDEOMAE_L = _spec("videomae_l", "85996bd2423fb6f0", 1024, 24, 16)
VIDEOMAE_H = _spec("videomae_h", "94d9b1cc7c1b0458", 1280, 32, 16)
VIDEOMAE_V2_S = _spec("videomae_v2_s", "2d684f30362b2870", 384, 12, 6)
VIDEOMAE_V2_B = _spec("videomae_v2_b", "5e3477a86e193ec4", 768, 12, 12)
VIDEOMAE_V2_G = _spec("videomae_v2_g", "443294ed4cd8e557", 1408, 40, 16, patch=14, hidden=6144)
