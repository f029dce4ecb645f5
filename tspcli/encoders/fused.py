"""Forms of the backbones that compute the same function faster, for inference only.

They differ in three ways. Batch norms are folded into the convolutions before them. Activations are
stored as (B, T, H, W, C), in which a 1x3x3 convolution is a 2-D one over B*T images and a 3x1x1
convolution a 2-D one over B images of T x (H*W) pixels, without moving a byte. On CPUs, each
convolution runs with its ReLU and its shortcut as one oneDNN operation, whose filters are packed
into oneDNN's order once instead of at every call. On CUDA, cuDNN has such operations, too
(:mod:`tspcli.encoders.cudnn_fused`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tspcli.encoders.backbones.i3d import I3d, Inception, SamePool3d, Unit3d, pad_same
from tspcli.encoders.backbones.i3d import pool_features as i3d_pool_features
from tspcli.encoders.backbones.resnet3d import BasicBlock, VideoResNet
from tspcli.encoders.backbones.slowfast import SlowFast
from tspcli.encoders.cudnn_fused import CudnnConvolution, Geometry

_CHANNEL_MULTIPLE = 16
"""oneDNN and tensor cores process channels in groups of this size; planes between two convolutions
are padded with zeros, which does not change the result."""
_FUSED_ERRORS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""The largest relative error of a fused convolution against torch's own, by supported dtype."""


def inference_form(
    backbone: nn.Module, device: torch.device, dtype: torch.dtype, layer: str = ""
) -> nn.Module:
    """A copy of a backbone on a device, in the form that runs fastest there.

    Args:
        backbone: As built, in float32; it is not changed.
        device: The device of the copy.
        dtype: The dtype that it computes in.
        layer: :attr:`BackboneSpec.layer`, whose output is not rounded to that dtype again.

    Returns:
        A module from (B, 3, T, H, W) of that dtype to (B, D), which are not rounded to it.
    """
    with torch.no_grad():
        if isinstance(backbone, VideoResNet):
            return FastVideoResNet(backbone).to(device, dtype).eval()
        if isinstance(backbone, I3d):
            return FastI3d(backbone).to(device, dtype).eval()
        if isinstance(backbone, SlowFast):
            # It is made of the convolutions defined here.
            from tspcli.encoders.fused_slowfast import FastSlowFast

            return FastSlowFast(backbone).to(device, dtype).eval()
        plain = copy.deepcopy(backbone).eval().to(device)
    return plain if dtype == torch.float32 else AutocastForm(plain, device.type, dtype, layer)


class AutocastForm(nn.Module):
    """Any other backbone in reduced precision; torch knows which operations tolerate it."""

    def __init__(
        self, module: nn.Module, device_type: str, dtype: torch.dtype, layer: str = ""
    ) -> None:
        super().__init__()
        self.module = module
        self.device_type = device_type
        self.dtype = dtype
        if layer:
            last = module.get_submodule(layer)
            last.register_forward_hook(lambda _, inputs, output: output.float())

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D), float32, of clips (B, 3, T, H, W)."""
        with torch.autocast(self.device_type, self.dtype):
            features: Tensor = self.module(x.float())
        return features


@cache
def has_fused_convolutions(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this build of torch has the fused oneDNN convolutions used here.

    ``torch.compile`` emits them for CPUs, but they are no public interface. They are therefore
    tried on a small example, and not used if anything is wrong, such as a processor for which
    oneDNN has no bfloat16 convolutions.
    """
    if dtype not in _FUSED_ERRORS or not torch.backends.mkldnn.is_available():
        return False
    with torch.no_grad():
        x = torch.linspace(-1, 1, 16 * 36, dtype=dtype).view(1, 16, 6, 6)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.linspace(-1, 1, 16 * 16 * 9, dtype=dtype).view(16, 16, 3, 3)
        bias, shortcut = torch.linspace(-1, 1, 16, dtype=dtype), x.flip(1)
        shortcut = shortcut.contiguous(memory_format=torch.channels_last)
        expected = F.relu(F.conv2d(x, weight, bias, 1, 1) + shortcut)
        try:
            packed = pack_filters(weight, (1, 1), (1, 1), x)
            got = fused_convolution(x, packed, bias, (1, 1), (1, 1), relu=True, shortcut=shortcut)
            # The 3-D operations are separate functions.
            deep = x.unsqueeze(2).contiguous(memory_format=torch.channels_last_3d)
            packed = pack_filters(weight.unsqueeze(2), (0, 1, 1), (1, 1, 1), deep)
            flat = fused_convolution(
                deep, packed, bias, (0, 1, 1), (1, 1, 1), relu=False, shortcut=None
            )
        except (RuntimeError, AttributeError, TypeError, NotImplementedError):
            return False
        pairs = ((got, expected), (flat.squeeze(2), F.conv2d(x, weight, bias, 1, 1)))
        bar = _FUSED_ERRORS[dtype]
        return all((a - b).float().norm() <= bar * b.float().norm() for a, b in pairs)


def pack_filters(
    weight: Tensor, padding: tuple[int, ...], stride: tuple[int, ...], x: Tensor
) -> Tensor:
    """Filters in oneDNN's preferred order for inputs like ``x``."""
    flat = weight.ndim == 4
    # Type stubs of some torch versions lack the last argument.
    library: Any = torch._C._nn
    reorder = library.mkldnn_reorder_conv2d_weight if flat else library.mkldnn_reorder_conv3d_weight
    ones = [1] * len(stride)
    opaque = weight.to_mkldnn()
    packed: Tensor = reorder(opaque, list(padding), list(stride), ones, 1, list(x.shape))
    return packed


def fused_convolution(
    x: Tensor,
    packed: Tensor,
    bias: Tensor,
    padding: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    relu: bool,
    shortcut: Tensor | None,
) -> Tensor:
    """Convolution, plus ``shortcut`` (which is overwritten), then ReLU, in one operation."""
    ones = [1] * len(stride)
    common = (packed, bias, list(padding), list(stride), ones, 1)
    if shortcut is None:
        act = "relu" if relu else "none"
        out = torch.ops.mkldnn._convolution_pointwise(x, *common, act, [], "")
    else:
        act_after = "relu" if relu else None
        out = torch.ops.mkldnn._convolution_pointwise_.binary(
            shortcut, x, *common, "add", 1.0, act_after, [], None
        )
    return cast(Tensor, out)


class FoldedConv(nn.Module):
    """A convolution with the batch norm behind it, on activations (B, T, H, W, C).

    Args:
        conv: The convolution, without bias, dilation or groups.
        norm: The batch norm that follows it.
        fill_inputs: Zero planes appended to its inputs.
        fill_outputs: Zero planes appended to its outputs.
    """

    def __init__(
        self, conv: nn.Conv3d, norm: nn.Module, fill_inputs: int = 0, fill_outputs: int = 0
    ) -> None:
        super().__init__()
        weight, bias = fold_batch_norm(conv.weight, cast(nn.BatchNorm3d, norm))
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, fill_inputs, 0, fill_outputs))
        self.bias = nn.Parameter(F.pad(bias, (0, fill_outputs)), requires_grad=False)
        time, height, width = conv.kernel_size
        self.over = "volume"
        if time == 1 and conv.stride[0] == 1:
            self.over = "images"
        elif height == width == 1 and conv.stride[1:] == (1, 1):
            self.over = "times"
        axes = {"volume": (0, 1, 2), "images": (1, 2), "times": (0, 1)}[self.over]
        padding = cast("tuple[int, int, int]", conv.padding)
        self.padding = tuple(padding[a] for a in axes)
        self.stride = tuple(conv.stride[a] for a in axes)
        if self.over == "images":
            weight = weight.squeeze(2)
        elif self.over == "times":
            weight = weight.squeeze(4)
        self.weight: nn.Parameter | None = nn.Parameter(
            weight.contiguous(memory_format=_memory_format(weight)), requires_grad=False
        )
        self._packed: Tensor | None = None
        self.on_cudnn = CudnnConvolution()

    @property
    def keeps_times(self) -> bool:
        """Whether its output has as many time steps as its input."""
        return self.over == "images" or self.stride[0] == 1

    def forward(
        self,
        x: Tensor,
        *,
        relu: bool = True,
        shortcut: Tensor | None = None,
        pad_times: bool = True,
    ) -> Tensor:
        """Convolve (B, T, H, W, C), add ``shortcut``, which may be overwritten, and apply ReLU.

        Without ``pad_times``, the output has only the times at which the filter lies within the
        input.
        """
        batch, times, height, width, _ = x.shape
        folded = self._fold(x)
        other = None if shortcut is None else self._fold(shortcut)
        padding = self.padding
        if not pad_times and self.over != "images":
            padding = (0, *padding[1:])
        out = self._convolve(folded, relu, other, padding).movedim(1, -1)
        if self.over == "images":
            out = out.unflatten(0, (batch, times))
        elif self.over == "times":
            out = out.unflatten(2, (height, width))
        return out

    def _fold(self, x: Tensor) -> Tensor:
        if self.over == "images":
            x = x.flatten(0, 1)
        elif self.over == "times":
            x = x.flatten(2, 3)
        return x.movedim(-1, 1)

    def _convolve(
        self, x: Tensor, relu: bool, shortcut: Tensor | None, padding: tuple[int, ...]
    ) -> Tensor:
        # torch's compiler fuses these operations itself.
        by_hand = not torch.compiler.is_compiling()
        if by_hand and x.device.type == "cpu" and has_fused_convolutions(x.dtype):
            if self._packed is None:
                assert self.weight is not None
                self._packed = pack_filters(self.weight, self.padding, self.stride, x)
                self.weight = None  # From now on only the packed filters are used.
            return fused_convolution(
                x,
                self._packed,
                self.bias,
                padding,
                self.stride,
                relu=relu,
                shortcut=shortcut,
            )
        assert self.weight is not None
        if by_hand and x.device.type == "cuda" and relu:
            at = Geometry(self.stride, padding)
            return self.on_cudnn(x, self.weight, self.bias, at, shortcut)
        convolve: Callable[..., Tensor] = F.conv2d if x.ndim == 4 else F.conv3d
        out = convolve(x, self.weight, self.bias, self.stride, padding)
        if shortcut is not None:
            out = out.add_(shortcut)
        return out.relu_() if relu else out


def fold_batch_norm(weight: Tensor, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Filters and bias of a convolution that includes the batch norm after it.

    The factors are computed in float64, so that each weight is rounded only once.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    folded = weight.double() * scale.view(-1, 1, 1, 1, 1)
    return folded.float(), bias.float()


def mean_over_positions(x: Tensor) -> Tensor:
    """Features (B, C), float32, of activations (B, T, H, W, C) of any dtype.

    torch sums half-precision numbers in float32 anyway; the mean is not rounded again.
    """
    return x.mean(dim=(1, 2, 3), dtype=torch.float32)


def _memory_format(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.channels_last_3d


def _filling(planes: int) -> int:
    return -planes % _CHANNEL_MULTIPLE


def _fold_sequence(layers: nn.Module, then: nn.Module) -> nn.ModuleList:
    """A convolution, or a factorised one with a batch norm inside, and the batch norm after it."""
    if isinstance(layers, nn.Conv3d):
        return nn.ModuleList([FoldedConv(layers, then)])
    spatial, norm, _, temporal = cast(nn.Sequential, layers)
    assert isinstance(spatial, nn.Conv3d) and isinstance(temporal, nn.Conv3d)
    fill = _filling(spatial.out_channels)
    return nn.ModuleList(
        [
            FoldedConv(spatial, norm, fill_outputs=fill),
            FoldedConv(temporal, then, fill_inputs=fill),
        ]
    )


class FastBasicBlock(nn.Module):
    """A :class:`BasicBlock` of folded convolutions."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        first = _fold_sequence(block.conv1[0], block.conv1[1])
        second = _fold_sequence(block.conv2[0], block.conv2[1])
        self.before = nn.ModuleList([*first, *second[:-1]])
        self.last = second[-1]
        self.downsample: FoldedConv | None = None
        if block.downsample is not None:
            projection, norm = cast(nn.Sequential, block.downsample)
            self.downsample = FoldedConv(cast(nn.Conv3d, projection), norm)

    def forward(self, x: Tensor) -> Tensor:
        # x is not used after this block, so it may be overwritten as the shortcut.
        shortcut = x if self.downsample is None else self.downsample(x, relu=False)
        for conv in self.before:
            x = conv(x)
        out: Tensor = self.last(x, shortcut=shortcut)
        return out


class FastVideoResNet(nn.Module):
    """A :class:`VideoResNet` of folded convolutions."""

    def __init__(self, plain: VideoResNet) -> None:
        super().__init__()
        layers = list(plain.stem)
        if len(layers) == 6:
            self.stem = _fold_sequence(nn.Sequential(*layers[:4]), layers[4])
        else:
            self.stem = _fold_sequence(layers[0], layers[1])
        stages = (plain.layer1, plain.layer2, plain.layer3, plain.layer4)
        blocks = [cast(BasicBlock, block) for stage in stages for block in stage]
        self.blocks = nn.ModuleList([FastBasicBlock(block) for block in blocks])

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1).contiguous()
        for conv in self.stem:
            x = conv(x)
        for block in self.blocks:
            x = block(x)
        return mean_over_positions(x)


class FastUnit3d(nn.Module):
    """A :class:`Unit3d` with its batch norm folded."""

    def __init__(self, unit: Unit3d) -> None:
        super().__init__()
        self.conv = FoldedConv(unit.conv, unit.bn)
        self.kernel = unit.conv.kernel_size
        self.stride = unit.conv.stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] != 1:
            padded = pad_same(x.movedim(-1, 1), self.kernel, self.stride, 0.0)
            x = padded.movedim(1, -1).contiguous()
        out: Tensor = self.conv(x)
        return out


class FastPool(nn.Module):
    """A :class:`SamePool3d` on activations (B, T, H, W, C)."""

    def __init__(self, pool: SamePool3d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x.movedim(-1, 1)).movedim(1, -1)
        return out.contiguous()


class FastInception(nn.Module):
    """An :class:`Inception` block of folded convolutions."""

    def __init__(self, block: Inception) -> None:
        super().__init__()
        branches = (block.branch0, *block.branch1, *block.branch2)
        self.only0, self.in1, self.out1, self.in2, self.out2 = (
            FastUnit3d(cast(Unit3d, unit)) for unit in branches
        )
        self.pool = FastPool(cast(SamePool3d, block.branch3[0]))
        self.only3 = FastUnit3d(cast(Unit3d, block.branch3[1]))

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            self.only0(x),
            self.out1(self.in1(x)),
            self.out2(self.in2(x)),
            self.only3(self.pool(x)),
        ]
        return torch.cat(parts, dim=-1)


class FastI3d(nn.Module):
    """An :class:`I3d` of folded convolutions."""

    def __init__(self, plain: I3d) -> None:
        super().__init__()
        self.steps = nn.ModuleList([_fast_step(step) for step in plain.children()])

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1).contiguous()
        for step in self.steps:
            x = step(x)
        return i3d_pool_features(x.movedim(-1, 1), torch.float32)


def _fast_step(step: nn.Module) -> nn.Module:
    if isinstance(step, Unit3d):
        return FastUnit3d(step)
    if isinstance(step, Inception):
        return FastInception(step)
    assert isinstance(step, SamePool3d)
    return FastPool(step)


__all__ = [
    "FoldedConv",
    "fold_batch_norm",
    "has_fused_convolutions",
    "inference_form",
    "mean_over_positions",
]
