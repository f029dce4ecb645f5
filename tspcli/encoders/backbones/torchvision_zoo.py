"""torchvision's other video networks, each with the input that its Kinetics weights expect.

Their classification layer is replaced by the identity, so that its input is the output. Frame
size, clip length and frame rate are those that torchvision states for its weights.
"""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from tspcli.encoders.backbones import BackboneSpec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec


def _headless(name: str, head: str) -> nn.Module:
    from torchvision.models import get_model

    module: nn.Module = get_model(name, weights=None)
    setattr(module, head, nn.Identity())
    return module


MC3_18 = BackboneSpec(
    name="mc3_18",
    keys="a7d3e4d81f2561e7",
    build=lambda: _headless("mc3_18", "fc"),
    feature_dim=512,
    layer="layer4",
    pooling="mean",
    blocks=("stem.*", "layer?.*"),
)
S3D = BackboneSpec(
    name="s3d",
    keys="efc666af3e45f11d",
    # Its layer is applied to each pooled position and the answers are averaged, which equals the
    # layer applied to the mean of the positions: the feature.
    build=lambda: _headless("s3d", "classifier"),
    feature_dim=1024,
    preprocessing=Preprocessing(resize=ResizeSpec(height=256, width=256), crop=(224, 224)),
    sampling=Sampling(clip_length=128, stride=128),
    min_clip_length=14,
    layer="features",
    pooling="own",
    blocks=("features.*",),
    stem=("features.0.",),
    plain_head="classifier.1",
)
MVIT_V2_S = BackboneSpec(
    name="mvit_v2_s",
    keys="1665aeccae800ec1",
    build=lambda: _headless("mvit_v2_s", "head"),
    feature_dim=768,
    preprocessing=Preprocessing(
        resize=ResizeSpec(short_side=256),
        crop=(224, 224),
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
    ),
    sampling=Sampling(frame_rate=Fraction(15, 2)),
    fixed_clip_length=True,
    layer="norm",
    pooling="token",
    blocks=("blocks.*",),
    stem=("conv_proj.",),
    plain_head="head.1",
)


def _swin(name: str, feature_dim: int, keys: str) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        keys=keys,
        build=lambda: _headless(name, "head"),
        feature_dim=feature_dim,
        preprocessing=Preprocessing(
            resize=ResizeSpec(short_side=256),
            crop=(224, 224),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        sampling=Sampling(clip_length=32, stride=32),
        layer="norm",
        # Its activations lie as (B, T, H, W, C).
        pooling="own",
        blocks=("patch_embed", "features.*"),
        stem=("patch_embed.",),
        plain_head="head",
    )


SWIN3D_T = _swin("swin3d_t", 768, "81e6d2dd68826a32")
SWIN3D_S = _swin("swin3d_s", 768, "8bfe50b7e49e0765")
SWIN3D_B = _swin("swin3d_b", 1024, "f129a50f94b8c06d")
