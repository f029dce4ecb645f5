"""torchvision's other video networks, each with the input that its Kinetics weights expect.

Their classification layer is replaced by nothing, so that what reaches it comes out. Preprocessing,
clip length and frame rate are those stated with torchvision's own weights.
"""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from tspcli.encoders.backbones.registry import BackboneSpec, register_backbone
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec

_IMAGENET = Preprocessing(
    resize=ResizeSpec(short_side=256),
    crop=(224, 224),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def _headless(name: str, head: str) -> nn.Module:
    from torchvision.models import get_model

    module: nn.Module = get_model(name, weights=None)
    setattr(module, head, nn.Identity())
    return module


register_backbone(
    BackboneSpec(
        name="mc3_18",
        build=lambda: _headless("mc3_18", "fc"),
        feature_dim=512,
        summary="MC3-18: 3-D convolutions in the first stage, 2-D ones above (torchvision).",
    )
)
register_backbone(
    BackboneSpec(
        name="s3d",
        # Its layer is applied to each pooled position and the answers are averaged: that is the
        # layer applied to the mean of the positions, which is the feature.
        build=lambda: _headless("s3d", "classifier"),
        feature_dim=1024,
        summary="S3D, separable Inception (torchvision); clips of 128 frames.",
        preprocessing=Preprocessing(resize=ResizeSpec(height=256, width=256), crop=(224, 224)),
        sampling=Sampling(clip_length=128, stride=128),
        plain_head="classifier.1",
        stem=("features.0.",),
        min_clip_length=14,
    )
)
register_backbone(
    BackboneSpec(
        name="mvit_v2_s",
        build=lambda: _headless("mvit_v2_s", "head"),
        feature_dim=768,
        summary="MViT v2 small (torchvision); clips of 16 frames at 7.5 a second.",
        preprocessing=Preprocessing(
            resize=ResizeSpec(short_side=256),
            crop=(224, 224),
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
        ),
        sampling=Sampling(frame_rate=Fraction(15, 2)),
        plain_head="head.1",
        stem=("conv_proj.",),
        fixed_clip_length=True,
    )
)
for _name, _dim, _size in (
    ("swin3d_t", 768, "tiny"),
    ("swin3d_s", 768, "small"),
    ("swin3d_b", 1024, "base"),
):
    register_backbone(
        BackboneSpec(
            name=_name,
            build=lambda name=_name: _headless(name, "head"),  # type: ignore[misc]  # mypy: a lambda's default has no type
            feature_dim=_dim,
            summary=f"Video Swin transformer, {_size} (torchvision); clips of 32 frames.",
            preprocessing=_IMAGENET,
            sampling=Sampling(clip_length=32, stride=32),
            plain_head="head",
            stem=("patch_embed.",),
        )
    )
