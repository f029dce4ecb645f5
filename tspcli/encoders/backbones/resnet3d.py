"""Video ResNets of basic blocks: R(2+1)D and R3D.

``r2plus1d_18`` and ``r3d_18`` are torchvision's networks (Tran et al., CVPR 2018), parameter for
parameter. ``r2plus1d_34`` is the network of the VMZ and IG-65M weights: the number of middle planes
of each factorised convolution follows from that convolution's own planes, and batch norms have an
epsilon of 1e-3 and a momentum of 0.9. All names in state dicts are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from tspcli.encoders.backbones import BackboneSpec

Norm = Callable[[int], nn.Module]
MidPlanes = Literal["per-convolution", "per-block"]
STAGE_WIDTHS = (64, 128, 256, 512)


def factorized_planes(inputs: int, outputs: int) -> int:
    """Middle planes that give a (2+1)D convolution as many weights as a 3x3x3 one."""
    return (inputs * outputs * 27) // (9 * inputs + 3 * outputs)


def factorized_conv(inputs: int, middle: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """A 1x3x3 convolution over space, followed by a 3x1x1 one over time."""
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        norm(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


def full_conv(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A 3x3x3 convolution."""
    return nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions with a shortcut around them, projected where shapes change."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        factorized: bool,
        middle: MidPlanes,
        norm: Norm,
    ) -> None:
        super().__init__()
        first_middle = factorized_planes(inputs, outputs)
        second_middle = first_middle
        if middle == "per-convolution":
            second_middle = factorized_planes(outputs, outputs)
        if factorized:
            first = factorized_conv(inputs, first_middle, outputs, stride, norm)
            second = factorized_conv(outputs, second_middle, outputs, 1, norm)
        else:
            first, second = full_conv(inputs, outputs, stride), full_conv(outputs, outputs, 1)
        self.conv1 = nn.Sequential(first, norm(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second, norm(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), norm(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class VideoResNet(nn.Module):
    """A stem, four stages of basic blocks, and the mean over time and space.

    Args:
        depths: Blocks in each of the four stages.
        factorized: Whether convolutions are (2+1)D instead of 3x3x3.
        middle: Whether the second convolution of a block has its own number of middle planes or
            that of the first. They differ where a stage begins.
        norm: Makes a batch norm for a number of planes.
        widths: Planes of each stage; the last is the width of the features.
        stem_middle: Middle planes of a factorised stem.
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        factorized: bool,
        middle: MidPlanes = "per-block",
        norm: Norm = nn.BatchNorm3d,
        widths: Sequence[int] = STAGE_WIDTHS,
        stem_middle: int = 45,
    ) -> None:
        super().__init__()
        width = widths[0]
        layers: list[nn.Module]
        if factorized:
            layers = [
                nn.Conv3d(3, stem_middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
                norm(stem_middle),
                nn.ReLU(inplace=True),
                nn.Conv3d(stem_middle, width, (3, 1, 1), 1, (1, 0, 0), bias=False),
            ]
        else:
            layers = [nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)]
        self.stem = nn.Sequential(*layers, norm(width), nn.ReLU(inplace=True))
        stages = []
        for index, (depth, outputs) in enumerate(zip(depths, widths, strict=True)):
            stride = 1 if index == 0 else 2
            blocks = [BasicBlock(width, outputs, stride, factorized, middle, norm)]
            blocks += [
                BasicBlock(outputs, outputs, 1, factorized, middle, norm) for _ in range(depth - 1)
            ]
            stages.append(nn.Sequential(*blocks))
            width = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature_dim = width
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) of clips (B, 3, T, H, W)."""
        x = self.stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3, 4))


_VMZ_NORM = partial(nn.BatchNorm3d, eps=1e-3, momentum=0.9)
_TINY_WIDTHS = (16, 32, 64, 128)


def _spec(
    name: str, keys: str, build: Callable[[], nn.Module], feature_dim: int = STAGE_WIDTHS[-1]
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        build=build,
        feature_dim=feature_dim,
        layer="layer4",
        pooling="mean",
        blocks=("stem.*", "layer?.*"),
        keys=keys,
    )


R2PLUS1D_34 = _spec(
    "r2plus1d_34",
    "6a86eb088de0a044",
    lambda: VideoResNet((3, 4, 6, 3), factorized=True, middle="per-convolution", norm=_VMZ_NORM),
)
R2PLUS1D_18 = _spec(
    "r2plus1d_18", "8fe6b05464739507", lambda: VideoResNet((2, 2, 2, 2), factorized=True)
)
R3D_18 = _spec("r3d_18", "68d55c6dda95f2e4", lambda: VideoResNet((2, 2, 2, 2), factorized=False))
TINY = _spec(
    "tiny",
    "4ffeeced5bc0a519",
    lambda: VideoResNet((1, 1, 1, 1), factorized=True, widths=_TINY_WIDTHS, stem_middle=12),
    feature_dim=_TINY_WIDTHS[-1],
)
