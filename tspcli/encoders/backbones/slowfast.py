"""SlowFast R50 and R101, 8x8 (Feichtenhofer et al., ICCV 2019).

Two ResNets: the slow one sees every fourth frame, the fast one every frame with an eighth of the
channels; what the fast one finds joins the slow one after each stage. Clips come in as one tensor,
and the module picks the slow frames itself. Names are those of pytorchvideo; files of PySlowFast,
from PyTorch and from Caffe2, are read as well.

The feature is that of Ego4D's extraction: windows of 7 x 7 positions are averaged first, then their
means, which weighs positions at the border less where the map is larger (256 pixels: 8 x 8). At
224 pixels the map is one window, and the rule is the plain mean of HERO and QVHighlights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tspcli.encoders.backbones import BackboneSpec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import CheckpointError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec

ALPHA = 4
"""Fast frames per slow frame."""
BETA = 8
"""Slow channels per fast channel."""
STEM_WIDTH = 64
POOL = 7


def slow_frames(frames: int) -> list[int]:
    """Which frames of a clip the slow pathway sees: evenly spread, the last one included.

    >>> slow_frames(32)
    [0, 4, 8, 13, 17, 22, 26, 31]
    """
    count = max(frames // ALPHA, 1)
    return [j * (frames - 1) // max(count - 1, 1) for j in range(count)]


def pooled(x: Tensor) -> Tensor:
    """The mean of all 7 x 7 windows of a map (B, C, T, h, w) over all times, (B, C) float32."""
    maps = x.float().mean(2)
    windows = (min(POOL, maps.shape[2]), min(POOL, maps.shape[3]))
    return F.avg_pool2d(maps, windows, stride=1).mean((2, 3))


class Conv(nn.Conv3d):
    """A convolution without bias, padded so that only its stride makes the output smaller."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, bias=False)


class Stem(nn.Module):
    """Convolution over 7 x 7 pixels, batch norm, ReLU, max-pooling."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = Conv(3, width, (times, 7, 7), (1, 2, 2))
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, C, T, H/4, W/4)."""
        x = F.relu(self.norm(self.conv(x)))
        return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Bottleneck(nn.Module):
    """Three convolutions: over time, over space (with the stride), over nothing."""

    def __init__(self, inputs: int, inner: int, outputs: int, times: int, stride: int) -> None:
        super().__init__()
        self.conv_a = Conv(inputs, inner, (times, 1, 1), (1, 1, 1))
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = Conv(inner, inner, (1, 3, 3), (1, stride, stride))
        self.norm_b = nn.BatchNorm3d(inner)
        self.conv_c = Conv(inner, outputs, (1, 1, 1), (1, 1, 1))
        self.norm_c = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H', W')."""
        x = F.relu(self.norm_a(self.conv_a(x)))
        x = F.relu(self.norm_b(self.conv_b(x)))
        return cast(Tensor, self.norm_c(self.conv_c(x)))


class ResBlock(nn.Module):
    """A bottleneck beside a shortcut, which is a convolution where the size changes."""

    def __init__(self, inputs: int, inner: int, outputs: int, times: int, stride: int) -> None:
        super().__init__()
        self.branch1_conv: nn.Conv3d | None = None
        self.branch1_norm: nn.BatchNorm3d | None = None
        if inputs != outputs or stride != 1:
            self.branch1_conv = Conv(inputs, outputs, (1, 1, 1), (1, stride, stride))
            self.branch1_norm = nn.BatchNorm3d(outputs)
        self.branch2 = Bottleneck(inputs, inner, outputs, times, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H', W')."""
        shortcut = x
        if self.branch1_conv is not None and self.branch1_norm is not None:
            shortcut = self.branch1_norm(self.branch1_conv(x))
        return F.relu(shortcut + self.branch2(x))


class ResStage(nn.Module):
    """Residual blocks of one width; the first has the stride."""

    def __init__(self, depth: int, inputs: int, outputs: int, times: int, stride: int) -> None:
        super().__init__()
        self.res_blocks = nn.Sequential(
            *(
                ResBlock(
                    inputs if i == 0 else outputs,
                    outputs // 4,
                    outputs,
                    times,
                    stride if i == 0 else 1,
                )
                for i in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H', W')."""
        return cast(Tensor, self.res_blocks(x))


class Fusion(nn.Module):
    """Fast channels for the slow pathway: every fourth time, convolved over time, and doubled."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv_fast_to_slow = Conv(width, 2 * width, (times, 1, 1), (ALPHA, 1, 1))
        self.norm = nn.BatchNorm3d(2 * width)

    def forward(self, fast: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, 2C, T/4, H, W)."""
        return F.relu(self.norm(self.conv_fast_to_slow(fast)))


class Stage(nn.Module):
    """One stage of both pathways, and what the slow one gets of the fast one after it."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: Fusion | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T/4, H, W) and (B, C/8, T, H, W) to both after the stage."""
        on_slow, on_fast = self.multipathway_blocks
        slow, fast = on_slow(slow), on_fast(fast)
        if self.multipathway_fusion is not None:
            slow = torch.cat([slow, self.multipathway_fusion(fast)], 1)
        return slow, fast


class Pool(nn.Module):
    """The features of both pathways, slow channels first; nothing in it is rounded."""

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """(B, C, T/4, h, w) and (B, C/8, T, h, w) to (B, C + C/8) float32."""
        return torch.cat([pooled(slow), pooled(fast)], 1)


class SlowFast(nn.Module):
    """The network up to the classification layer.

    Args:
        depths: Residual blocks of the four stages.
        fusion_times: Length of the fusions' filters: 7 in R50, 5 in R101.
        width: Channels of the slow stem.
    """

    def __init__(self, depths: tuple[int, ...], fusion_times: int, width: int = STEM_WIDTH) -> None:
        super().__init__()
        slow_in, slow_out = width, 4 * width
        self.blocks = nn.ModuleList(
            [Stage(Stem(width, 1), Stem(width // BETA, 5), Fusion(width // BETA, fusion_times))]
        )
        for index, depth in enumerate(depths):
            last = index == len(depths) - 1
            stride = 1 if index == 0 else 2
            self.blocks.append(
                Stage(
                    ResStage(
                        depth, slow_in + 2 * slow_in // BETA, slow_out, 1 + 2 * (index > 1), stride
                    ),
                    ResStage(depth, slow_in // BETA, slow_out // BETA, 3, stride),
                    None if last else Fusion(slow_out // BETA, fusion_times),
                )
            )
            slow_in, slow_out = slow_out, 2 * slow_out
        self.pool = Pool()
        self.feature_dim = slow_in + slow_in // BETA

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        slow, fast = x[:, :, slow_frames(x.shape[2])], x
        for block in self.blocks:
            slow, fast = block(slow, fast)
        return cast(Tensor, self.pool(slow, fast))


_PYSLOWFAST_NAMES = (
    (r"^s1\.pathway([01])_stem\.conv\.", r"blocks.0.multipathway_blocks.\1.conv."),
    (r"^s1\.pathway([01])_stem\.bn\.", r"blocks.0.multipathway_blocks.\1.norm."),
    (r"^s(\d)_fuse\.conv_f2s\.", r"blocks.<\1>.multipathway_fusion.conv_fast_to_slow."),
    (r"^s(\d)_fuse\.bn\.", r"blocks.<\1>.multipathway_fusion.norm."),
    (
        r"^s(\d)\.pathway([01])_res(\d+)\.",
        r"blocks.<\1>.multipathway_blocks.\2.res_blocks.\3.",
    ),
    (r"\.branch1\.", ".branch1_conv."),
    (r"\.branch1_bn\.", ".branch1_norm."),
    (r"\.branch2\.([abc])\.", r".branch2.conv_\1."),
    (r"\.branch2\.([abc])_bn\.", r".branch2.norm_\1."),
    (r"^head\.projection\.", "blocks.6.proj."),
)
_CAFFE2_NAMES = (
    (r"^(t?)_?(?:res_)?conv1_(bn_)?", r"s1.pathway<\1>_stem.\2"),
    (r"^t_pool1_subsample_(bn_)?", r"s1_fuse.\1"),
    (r"^t_res(\d)_\d+_branch2c_bn_subsample_(bn_)?", r"s\1_fuse.\2"),
    (r"^(t?)_?res(\d)_(\d+)_branch1_(bn_)?", r"s\2.pathway<\1>_res\3.branch1.\4"),
    (r"^(t?)_?res(\d)_(\d+)_branch2([abc])_(bn_)?", r"s\2.pathway<\1>_res\3.branch2.\4.\5"),
    (r"^pred_", "head.projection."),
)
_CAFFE2_PARTS = {
    "w": "weight",
    "b": "bias",
    "bn_s": "weight",
    "bn_b": "bias",
    "bn_rm": "running_mean",
    "bn_riv": "running_var",
}


def from_pyslowfast(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """PySlowFast's names as pytorchvideo's; None if two tensors would have one name."""
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in _PYSLOWFAST_NAMES:
            name = re.sub(pattern, replacement, name)
        # Its stages count from one.
        name = re.sub(r"<(\d)>", lambda found: str(int(found[1]) - 1), name)
        named[name] = tensor
    return named if len(named) == len(state) else None


def caffe2_name(blob: str) -> str:
    """PySlowFast's name of a blob of Caffe2.

    >>> caffe2_name("t_res4_5_branch2c_bn_subsample_bn_rm"), caffe2_name("res2_0_branch1_w")
    ('s4_fuse.bn.running_mean', 's2.pathway0_res0.branch1.weight')
    """
    for pattern, replacement in _CAFFE2_NAMES:
        renamed = re.sub(pattern, replacement, blob)
        if renamed == blob:
            continue
        renamed = renamed.replace("<t>", "1").replace("<>", "0")
        place, _, part = renamed.rpartition(".")
        is_norm = part.startswith("bn_")
        if re.search(r"_stem$|_fuse$", place):
            place += ".bn" if is_norm else (".conv_f2s" if place.endswith("_fuse") else ".conv")
        elif is_norm:
            place += "_bn"
        return f"{place}.{_CAFFE2_PARTS.get(part, part)}"
    return blob


def _from_caffe2(name: str, tree: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The blobs of a Caffe2 file as a state dict with its head, if they fit this backbone."""
    from tspcli.encoders.state_dicts import backbone_shapes, difference

    blobs = tree.get("blobs")
    if not isinstance(blobs, Mapping):
        raise CheckpointError(f"{path} does not contain SlowFast: it has no blobs.", path=path)
    own: dict[str, Tensor] = {}
    for blob, array in blobs.items():
        # The state of its training.
        if not re.search(r"_momentum$|^lr$|^model_iter$", blob):
            own[caffe2_name(blob)] = torch.from_numpy(np.array(array, dtype=np.float32))
    state = from_pyslowfast(own) or {}
    body = {k: v for k, v in state.items() if not k.startswith("blocks.6.")}
    found = {k: tuple(v.shape) for k, v in body.items()}
    if problems := difference(found, backbone_shapes(name)):
        raise CheckpointError(
            f"{path} does not fit {name}: {problems}.",
            path=path,
            backbone=name,
            differences=problems,
        )
    head = {k: v for k, v in state.items() if k not in body}
    return {
        **{f"features.{k}": v for k, v in body.items()},
        **{k.replace("blocks.6.proj.", "fc."): v for k, v in head.items()},
    }


def _spec(
    name: str, depths: tuple[int, ...], fusion_times: int, size: int, keys: str, sampling: Sampling
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        keys=keys,
        build=lambda: SlowFast(depths, fusion_times),
        feature_dim=2304,
        preprocessing=Preprocessing(
            resize=ResizeSpec(short_side=size),
            crop=(size, size),
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
        ),
        sampling=sampling,
        min_clip_length=ALPHA,
        layer="pool",
        # Of two maps of different lengths.
        pooling="own",
        blocks=("blocks.*",),
        stem=("blocks.0.",),
        plain_head="blocks.6.proj",
        convert=from_pyslowfast,
        from_arrays=lambda tree, path: _from_caffe2(name, tree, path),
    )


# Trained on 32 frames of 64 at 30 per second; a row every 2 seconds.
SLOWFAST_R50 = _spec(
    "slowfast_r50", (3, 4, 6, 3), 7, 224, "c977ad43b708026e", Sampling(clip_length=32, stride=30)
)
# As Ego4D's features: the last clip ends with the video.
SLOWFAST_R101 = _spec(
    "slowfast_r101",
    (3, 4, 23, 3),
    5,
    256,
    "8432101f971bbd9b",
    Sampling(Fraction(30), clip_length=32, stride=16, tail="flush"),
)
