"""EgoVLP's video encoder: divided attention against full attention under a mask, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.builders.networks import perturbed
from tspcli.encoders.backbones.egovlp import DividedAttention, SpaceTimeTransformer
from tspcli.encoders.state_dicts import backbone_shapes, identify
from tspcli.errors import CheckpointError

WIDTH, HEADS, FRAMES, PATCHES = 48, 3, 3, 4


@pytest.mark.parametrize("over_time", [True, False])
def test_divided_attention_is_full_attention_under_a_mask(over_time: bool) -> None:
    torch.manual_seed(0)
    layer = perturbed(DividedAttention(WIDTH, HEADS, over_time))
    x = torch.randn(2, 1 + FRAMES * PATCHES, WIDTH)
    place = torch.arange(FRAMES * PATCHES)
    group = place % PATCHES if over_time else place // PATCHES
    seen = torch.ones(len(place) + 1, len(place) + 1, dtype=torch.bool)
    seen[1:, 1:] = group[:, None] == group[None]
    with torch.inference_mode():
        parts = layer.get_submodule("qkv")(x).chunk(3, 2)
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        mixed = scores.masked_fill(~seen, float("-inf")).softmax(3) @ v
        expected = layer.get_submodule("proj")(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(layer(x, FRAMES), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(1)
    return perturbed(SpaceTimeTransformer(WIDTH, 2, HEADS, 16, 32, 8))


def normed(x: Tensor, layer: nn.Module) -> Tensor:
    return F.layer_norm(x, (WIDTH,), layer.weight, layer.bias, 1e-6)  # type: ignore[arg-type]


def test_shortcuts_positions_and_projection(module: nn.Module) -> None:
    """y = x + space(x + time(x)), not x + time + space; positions are tiled over frames."""
    clip = torch.randn(1, 3, FRAMES, 32, 32)
    state = module.state_dict()
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    with torch.inference_mode():
        tokens = []
        for time in range(FRAMES):
            patches = F.conv2d(clip[:, :, time], weight, bias, 16).flatten(2).transpose(1, 2)
            tokens.append(patches + state["pos_embed"][:, 1:] + state["temporal_embed"][:, time])
        x = torch.cat([state["cls_token"] + state["pos_embed"][:, :1], *tokens], 1)
        for block in module.get_submodule("blocks").children():
            get = block.get_submodule
            time_part = get("timeattn")(normed(x, get("norm3")), FRAMES)
            y = x + get("attn")(normed(x + time_part, get("norm1")), FRAMES)
            x = y + get("mlp")(normed(y, get("norm2")))
        first = normed(x, module.get_submodule("norm"))[:, 0]
        expected = first @ state["vid_proj.0.weight"].T + state["vid_proj.0.bias"]
        torch.testing.assert_close(module(clip), expected, rtol=1e-5, atol=1e-5)


def published(prefix: str) -> dict[str, Tensor]:
    """Names and shapes of a checkpoint, the text encoder's too; nothing takes memory."""
    shapes = backbone_shapes("egovlp")
    named = {n if n.startswith("vid_proj") else f"video_model.{n}": s for n, s in shapes.items()}
    text = {"text_model.embeddings.word_embeddings.weight": (30522, 768), "txt_proj.1.bias": (256,)}
    return {prefix + n: torch.zeros(1).expand(s) for n, s in {**named, **text}.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_video_encoder_is_taken_out_of_its_checkpoint(prefix: str) -> None:
    found = identify(published(prefix), Path("egovlp.pth"))
    assert found.backbone == "egovlp" and found.heads.n_actions is None
    assert len(found.state) == len(backbone_shapes("egovlp"))


def test_a_checkpoint_without_the_projection_is_refused() -> None:
    state = {k: v for k, v in published("").items() if not k.startswith("vid_proj")}
    with pytest.raises(CheckpointError) as caught:
        identify(state, Path("egovlp.pth"), backbone="egovlp")
    assert "vid_proj.0.weight" in caught.value.data["differences"]
