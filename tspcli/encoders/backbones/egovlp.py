"""The video encoder of EgoVLP (Lin et al., NeurIPS 2022), that of Frozen in Time.

A ViT-B/16 with divided attention: in each block first over the times of one patch, then over the
patches of one frame, with the class token in both; the shortcut of the second goes around the first
as well. The feature is the class token, normed and projected to 256 channels, of any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import torch
from torch import Tensor, nn

from tspcli.encoders.backbones import BackboneSpec
from tspcli.encoders.backbones.vit_parts import Mlp, attend, draw_as_transformers, project
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec

EPSILON = 1e-6
FEATURE_DIM = 256
MOST_FRAMES = 16
FRAMES = 4


class DividedAttention(nn.Module):
    """Attention of each token to those of its group and to the class token, which sees all.

    Args:
        width: D.
        heads: Number of heads.
        over_time: Whether a group is one patch at all times, instead of all patches at one time.
    """

    def __init__(self, width: int, heads: int, over_time: bool) -> None:
        super().__init__()
        self.heads = heads
        self.over_time = over_time
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B, 1 + frames * patches, D) to the same shape."""
        query, key, value = project(self.qkv, x)
        first = attend(query[:, :1], key, value, self.heads)
        groups = frames if not self.over_time else (x.shape[1] - 1) // frames
        q, k, v = (self._grouped(part[:, 1:], frames) for part in (query, key, value))
        shared = (part[:, :1].repeat_interleave(groups, 0) for part in (key, value))
        k, v = (torch.cat(pair, 1) for pair in zip(shared, (k, v), strict=True))
        others = attend(q, k, v, self.heads).unflatten(0, (len(x), groups))
        if self.over_time:
            others = others.transpose(1, 2)
        return cast(Tensor, self.proj(torch.cat([first, others.flatten(1, 2)], 1)))

    def _grouped(self, tokens: Tensor, frames: int) -> Tensor:
        """(B, frames * patches, D) to (B * groups, tokens of a group, D)."""
        planes = tokens.unflatten(1, (frames, -1))
        return (planes.transpose(1, 2) if self.over_time else planes).flatten(0, 1)


class Block(nn.Module):
    """Attention over time, over space, and a two-layer network."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = DividedAttention(width, heads, over_time=False)
        self.timeattn = DividedAttention(width, heads, over_time=True)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = Mlp(width, hidden)
        self.norm3 = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B, 1 + frames * patches, D) to the same shape."""
        over_time = self.timeattn(self.norm3(x), frames)
        x = x + self.attn(self.norm1(x + over_time), frames)
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Squares of pixels to tokens, frame by frame."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, patches, D)."""
        return cast(Tensor, self.proj(x)).flatten(2).transpose(1, 2)


class SpaceTimeTransformer(nn.Module):
    """The video encoder and its projection.

    Args:
        width: D, of tokens.
        depth: Number of blocks.
        heads: Of each attention.
        patch: Side of a token in pixels.
        size: Height and width of the frames.
        feature_dim: Width of the features.
    """

    def __init__(
        self,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        size: int = 224,
        feature_dim: int = FEATURE_DIM,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.temporal_embed = nn.Parameter(torch.zeros(1, MOST_FRAMES, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.vid_proj = nn.Sequential(nn.Linear(width, feature_dim))
        draw_as_transformers(self)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W), T up to 16, to (B, feature_dim)."""
        count, frames = len(x), x.shape[2]
        tokens = self.patch_embed(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (count, frames))
        tokens = tokens + self.pos_embed[:, None, 1:] + self.temporal_embed[:, :frames, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(count, -1, -1)
        x = torch.cat([first, tokens.flatten(1, 2)], 1)
        for block in self.blocks:
            x = block(x, frames)
        return cast(Tensor, self.vid_proj(self.norm(x[:, 0])))


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The video encoder of a checkpoint that holds the text encoder, too."""
    return {
        name.removeprefix("video_model."): tensor
        for name, tensor in state.items()
        if not name.startswith(("text_model.", "txt_proj."))
    }


EGOVLP = BackboneSpec(
    name="egovlp",
    keys="3497b5173da34fdc",
    build=SpaceTimeTransformer,
    feature_dim=FEATURE_DIM,
    # Its own code scales the short side to 256, crops, and scales again, to 224.
    preprocessing=Preprocessing(
        resize=ResizeSpec(short_side=224),
        crop=(224, 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    # 1.87 clips of 4 frames per second.
    sampling=Sampling(Fraction(187, 25), FRAMES, FRAMES, Fraction(187, 25)),
    fixed_clip_length=True,
    layer="norm",
    # The class token, projected.
    pooling="own",
    blocks=("blocks.*",),
    stem=("patch_embed.",),
    plain_head="fc",
    convert=from_published,
)
