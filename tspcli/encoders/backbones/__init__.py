"""The table of backbones, and what each one states; importing it imports no torch.

A backbone is a module that turns normalised clips (B, 3, T, H, W) into pooled features (B, D). To
add one, write a file that defines a :class:`BackboneSpec` and name it in :data:`BACKBONES`. A
package of its own names a :class:`BackboneEntry` as an entry point of the group
``tspcli.backbones`` instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tspcli.core.extension_table import Table
from tspcli.errors import DependencyError, UsageError
from tspcli.sampling import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from tspcli.encoders.preprocessing import Preprocessing


class BackboneEntry(NamedTuple):
    """One line of the table.

    Attributes:
        name: What the user calls it.
        spec: Where its :class:`BackboneSpec` is: ``module:attribute``.
        summary: One line for people.
        extra: The extra of tspcli that it needs (``pip install 'tspcli[extra]'``).
    """

    name: str
    spec: str
    summary: str
    extra: str | None = None


_RESNET3D = "tspcli.encoders.backbones.resnet3d"
_INTERNVIDEO2 = "tspcli.encoders.backbones.internvideo2"
_SLOWFAST = "tspcli.encoders.backbones.slowfast"
_TORCHVISION = "tspcli.encoders.backbones.torchvision_zoo"
_VIDEOMAE = "tspcli.encoders.backbones.videomae"

BACKBONES: Table[BackboneEntry] = Table(
    "tspcli.backbones",
    (
        BackboneEntry(
            "i3d",
            "tspcli.encoders.backbones.i3d:I3D",
            "I3D (inflated Inception-v1), RGB, 25 frames per second.",
        ),
        BackboneEntry(
            "r2plus1d_34",
            f"{_RESNET3D}:R2PLUS1D_34",
            "R(2+1)D-34 as in VMZ and IG-65M; the encoder of the released TSP features.",
        ),
        BackboneEntry("r2plus1d_18", f"{_RESNET3D}:R2PLUS1D_18", "R(2+1)D-18 as in torchvision."),
        BackboneEntry("r3d_18", f"{_RESNET3D}:R3D_18", "R3D-18 as in torchvision."),
        BackboneEntry(
            "tiny",
            f"{_RESNET3D}:TINY",
            "A narrow R(2+1)D with one block per stage, for tests, demonstrations and laptops.",
        ),
        BackboneEntry(
            "mc3_18",
            f"{_TORCHVISION}:MC3_18",
            "MC3-18: 3-D convolutions in the first stage, 2-D ones above (torchvision).",
        ),
        BackboneEntry(
            "s3d",
            f"{_TORCHVISION}:S3D",
            "S3D, separable Inception (torchvision); clips of 128 frames.",
        ),
        BackboneEntry(
            "mvit_v2_s",
            f"{_TORCHVISION}:MVIT_V2_S",
            "MViT v2 small (torchvision); clips of 16 frames at 7.5 per second.",
        ),
        BackboneEntry(
            "swin3d_t",
            f"{_TORCHVISION}:SWIN3D_T",
            "Video Swin, tiny (torchvision); clips of 32 frames.",
        ),
        BackboneEntry(
            "swin3d_s",
            f"{_TORCHVISION}:SWIN3D_S",
            "Video Swin, small (torchvision); clips of 32 frames.",
        ),
        BackboneEntry(
            "swin3d_b",
            f"{_TORCHVISION}:SWIN3D_B",
            "Video Swin, base (torchvision); clips of 32 frames.",
        ),
        BackboneEntry(
            "videomae_s", f"{_VIDEOMAE}:VIDEOMAE_S", "VideoMAE ViT-S/16; clips of 16 frames."
        ),
        BackboneEntry(
            "videomae_b", f"{_VIDEOMAE}:VIDEOMAE_B", "VideoMAE ViT-B/16; clips of 16 frames."
        ),
        BackboneEntry(
            "videomae_l",
            f"{_VIDEOMAE}:VIDEOMAE_L",
            "VideoMAE ViT-L/16, InternVideo's too; clips of 16 frames.",
        ),
        BackboneEntry(
            "videomae_h",
            f"{_VIDEOMAE}:VIDEOMAE_H",
            "VideoMAE ViT-H/16, InternVideo's too; clips of 16 frames.",
        ),
        BackboneEntry(
            "videomae_v2_s",
            f"{_VIDEOMAE}:VIDEOMAE_V2_S",
            "VideoMAE v2 ViT-S/16, distilled from g; clips of 16 frames.",
        ),
        BackboneEntry(
            "videomae_v2_b",
            f"{_VIDEOMAE}:VIDEOMAE_V2_B",
            "VideoMAE v2 ViT-B/16, distilled from g; clips of 16 frames.",
        ),
        BackboneEntry(
            "videomae_v2_g",
            f"{_VIDEOMAE}:VIDEOMAE_V2_G",
            "VideoMAE v2 ViT-g/14; clips of 16 frames.",
        ),
        BackboneEntry(
            "slowfast_r50",
            f"{_SLOWFAST}:SLOWFAST_R50",
            "SlowFast R50 8x8, both pathways; clips of 32 frames at 15 per second.",
        ),
        BackboneEntry(
            "slowfast_r101",
            f"{_SLOWFAST}:SLOWFAST_R101",
            "SlowFast R101 8x8 as in Ego4D's features; clips of 32 frames at 30 per second.",
        ),
        BackboneEntry(
            "internvideo2_s",
            f"{_INTERNVIDEO2}:INTERNVIDEO2_S",
            "InternVideo2 ViT-S/14, distilled; clips of 8 frames.",
        ),
        BackboneEntry(
            "internvideo2_b",
            f"{_INTERNVIDEO2}:INTERNVIDEO2_B",
            "InternVideo2 ViT-B/14, distilled; clips of 8 frames.",
        ),
        BackboneEntry(
            "internvideo2_l",
            f"{_INTERNVIDEO2}:INTERNVIDEO2_L",
            "InternVideo2 ViT-L/14, distilled; clips of 8 frames.",
        ),
        BackboneEntry(
            "internvideo2_1b",
            f"{_INTERNVIDEO2}:INTERNVIDEO2_1B",
            "InternVideo2-1B, without class token and projector; clips of 8 frames.",
        ),
        BackboneEntry(
            "egovlp",
            "tspcli.encoders.backbones.egovlp:EGOVLP",
            "EgoVLP's video encoder with its projection; clips of 4 frames.",
        ),
    ),
)
"""Every known backbone by name."""


def _tsp_preprocessing() -> Preprocessing:
    from tspcli.encoders.preprocessing import Preprocessing

    return Preprocessing()


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone, the input that it expects, and what other parts have to know of its inside.

    Attributes:
        name: Its name in :data:`BACKBONES`.
        build: Makes the module with fresh random weights. Its forward takes (B, 3, T, H, W) and
            returns (B, feature_dim) pooled features, without a classification layer. Imports of
            optional packages belong inside.
        feature_dim: Width D of the features.
        preprocessing: Of frames.
        sampling: Default frame rate, clip length and stride.
        min_clip_length: The fewest frames per clip that it takes.
        fixed_clip_length: Whether it takes clips of the default length alone.
        layer: Name of the submodule whose output is pooled. In reduced precision its output is
            converted to float32, so that pooling does not round the features again.
        pooling: How that output becomes the features: ``mean`` over all positions, the first
            ``token``, or a way of its ``own``.
        blocks: Names of the submodules that run one after the other and can each be computed again
            in the backward pass; ``*`` and ``?`` stand for part of a name between two dots.
        stem: Prefixes of the parameters that TSP's recipe does not train.
        plain_head: Where published checkpoints keep the classification layer: the prefix of its
            ``weight`` and ``bias``.
        key_prefixes: Prefixes under which published checkpoints keep the backbone, if they use any.
        rename: Turns the name of a tensor in published checkpoints, without such a prefix, into the
            backbone's own (``conv1.weight`` into ``stem.0.weight``); None drops the tensor. Own
            names are recognised first.
        convert: Turns a whole published checkpoint, heads included, into the names and shapes that
            the backbone's own code gives them, where names alone do not do: parts of a layer are
            joined. None if it cannot be one of this backbone.
        keys: Digest of the names and shapes in its state dict
            (:func:`tspcli.encoders.state_dicts.digest_of_keys`), by which checkpoints are
            recognised without building it; None if it has to be built.
        from_arrays: Turns nested numpy arrays, as published by JAX programs, into tensors named
            ``features.*`` and ``fc.*``; takes the arrays and the path for messages.
    """

    name: str
    build: Callable[[], nn.Module]
    feature_dim: int
    preprocessing: Preprocessing = field(default_factory=_tsp_preprocessing)
    sampling: Sampling = field(default_factory=Sampling)
    min_clip_length: int = 1
    fixed_clip_length: bool = False
    layer: str = ""
    pooling: Literal["mean", "token", "own"] = "own"
    blocks: tuple[str, ...] = ("*",)
    stem: tuple[str, ...] = ("stem.",)
    plain_head: str = "fc"
    key_prefixes: tuple[str, ...] = ()
    rename: Callable[[str], str | None] | None = None
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor] | None] | None = None
    keys: str | None = None
    from_arrays: Callable[[Mapping[str, Any], Path], dict[str, Tensor]] | None = None

    def check_clip_length(self, frames: int) -> None:
        """Raise a :class:`UsageError` if clips of ``frames`` frames do not fit."""
        length = self.sampling.clip_length
        fits = frames == length if self.fixed_clip_length else frames >= self.min_clip_length
        if not fits:
            takes = f"{length}" if self.fixed_clip_length else f"at least {self.min_clip_length}"
            raise UsageError(
                f"{self.name} takes clips of length {takes}, not {frames}.",
                remedy=f"Use a clip length of {length}.",
                option="clip_length",
                value=frames,
            )

    def find_blocks(self, backbone: nn.Module) -> list[nn.Module]:
        """The submodules of a built backbone that :attr:`blocks` names, in their order."""
        return [
            module
            for name, module in backbone.named_modules()
            if any(_matches(name, pattern) for pattern in self.blocks)
        ]


def _matches(name: str, pattern: str) -> bool:
    return name.count(".") == pattern.count(".") and fnmatchcase(name, pattern) and bool(name)


@contextmanager
def _explaining_missing_packages(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        extra = BACKBONES[name].extra
        remedy = f"pip install 'tspcli[{extra}]'" if extra else "Install the missing package."
        raise DependencyError(
            f"The backbone {name} cannot be used: {error}.", remedy=remedy, backbone=name
        ) from error


def backbone_spec(name: str) -> BackboneSpec:
    """The spec of a backbone; its module is imported now, not before.

    Raises:
        UsageError: If there is no backbone of that name.
        DependencyError: If its module needs a package that is not installed.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"There is no backbone {name!r}.",
            remedy=f"{hint}Known: {', '.join(BACKBONES)}.",
            option="backbone",
            value=name,
            nearest=near,
        )
    entry = BACKBONES[name]
    module, _, attribute = entry.spec.partition(":")
    with _explaining_missing_packages(name):
        spec = getattr(import_module(module), attribute)
    assert isinstance(spec, BackboneSpec), f"{entry.spec} is not a BackboneSpec"
    return spec


def usable_specs() -> list[BackboneSpec]:
    """The specs of all backbones but those that need a package that is not installed."""
    specs = []
    for name in BACKBONES.complete():
        with suppress(DependencyError):
            specs.append(backbone_spec(name))
    return specs


def build_backbone(name: str) -> nn.Module:
    """Make a backbone with random weights: (B, 3, T, H, W) to (B, D), no classification layer.

    Raises:
        UsageError: If there is no backbone of that name.
        DependencyError: If it needs a package that is not installed.
    """
    spec = backbone_spec(name)
    with _explaining_missing_packages(name):
        return spec.build()
