"""InternVideo2: its arithmetic, restated plainly, and the layouts of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.builders.networks import perturbed
from tspcli.encoders.backbones.internvideo2 import InternVideo2, from_published
from tspcli.encoders.fused import inference_form
from tspcli.encoders.state_dicts import backbone_shapes, identify
from tspcli.errors import CheckpointError

WIDTH, HEADS, FRAMES, SIZE = 48, 3, 4, 28


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return perturbed(InternVideo2(WIDTH, 2, HEADS, 100, size=SIZE, frames=FRAMES))


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def restated(state: dict[str, Tensor], clips: Tensor) -> Tensor:
    """The network in the words of its paper and code, one clip and one head at a time."""
    rows = []
    for clip in clips:
        kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
        patches = F.conv2d(clip.transpose(0, 1), kernel[:, :, 0], bias, 14)
        tokens = patches.permute(0, 2, 3, 1).reshape(-1, WIDTH)
        x = torch.cat([state["cls_token"][0], tokens]) + state["pos_embed"][0]
        for i in range(2):
            p = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items()}
            q, k, v = (rms(x, p["norm1.weight"]) @ p["attn.qkv.weight"].T).chunk(3, 1)
            q, k = rms(q, p["attn.q_norm.weight"]), rms(k, p["attn.k_norm.weight"])
            heads = []
            for part in torch.arange(WIDTH).chunk(HEADS):
                scores = q[:, part] @ k[:, part].T / len(part) ** 0.5
                heads.append(scores.softmax(1) @ v[:, part])
            mixed = torch.cat(heads, 1) @ p["attn.proj.weight"].T + p["attn.proj.bias"]
            x = x + mixed * p["ls1.gamma"]
            inner = rms(x, p["norm2.weight"]) @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]
            cubic = inner + 0.044715 * inner**3
            inner = 0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * cubic))
            x = x + (inner @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]) * p["ls2.gamma"]
        rows.append(x[1:].mean(0))
    return torch.stack(rows)


def test_rows_are_those_of_the_plain_formulas(module: nn.Module) -> None:
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE)
    with torch.inference_mode():
        found, expected = module(clips), restated(module.state_dict(), clips)
    assert expected.abs().max() > 0.3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-6)


def test_other_clips_interpolate_the_positions(module: nn.Module) -> None:
    """First in time, linearly, then the planes, as the original converts its checkpoints."""
    state = module.state_dict()
    first, others = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    lines = others.reshape(FRAMES, 4, WIDTH).permute(1, 2, 0)
    longer = F.interpolate(lines, 2 * FRAMES, mode="linear").permute(2, 0, 1)
    planes = longer.reshape(2 * FRAMES, 2, 2, WIDTH).permute(0, 3, 1, 2)
    larger = F.interpolate(planes, (3, 3), mode="bicubic", align_corners=False)
    positions = torch.cat([first, larger.permute(0, 2, 3, 1).reshape(1, -1, WIDTH)], 1)
    made_for = InternVideo2(WIDTH, 2, HEADS, 100, size=42, frames=2 * FRAMES).eval()
    made_for.load_state_dict({**state, "pos_embed": positions})
    clips = torch.randn(1, 3, 2 * FRAMES, 42, 42)
    with torch.inference_mode():
        torch.testing.assert_close(module(clips), made_for(clips), rtol=1e-5, atol=3e-6)


def test_reduced_precision_stays_near(module: nn.Module) -> None:
    quick = inference_form(module, torch.device("cpu"), torch.bfloat16, "norm")
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE)
    with torch.inference_mode():
        found, expected = quick(clips.bfloat16()), module(clips)
    assert found.dtype == torch.float32
    assert ((found - expected).norm() / expected.norm()).item() < 2e-2


def published(prefix: str) -> dict[str, Tensor]:
    """Names and shapes of a file of the distilled small network; nothing takes memory."""
    shapes = backbone_shapes("internvideo2_s")
    behind = {"clip_projector.norm1_q.weight": (384,), "fc_norm.weight": (768,)}
    heads = {"head.weight": (710, 768), "head.bias": (710,), "clip_decoder.0.head.bias": (1408,)}
    everything = {**shapes, **behind, **heads}
    return {prefix + name: torch.zeros(1).expand(shape) for name, shape in everything.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "module.encoder."])
def test_files_are_read_up_to_the_last_block(prefix: str) -> None:
    found = identify(published(prefix), Path("x.bin"))
    assert found.backbone == "internvideo2_s" and found.heads.n_actions is None
    assert len(found.state) == len(backbone_shapes("internvideo2_s"))


def test_positions_of_another_length_are_refused() -> None:
    """Weights tuned on 16 frames hold other positions."""
    state = {**published(""), "pos_embed": torch.zeros(1).expand(1, 4097, 384)}
    with pytest.raises(CheckpointError) as caught:
        identify(state, Path("x.bin"), backbone="internvideo2_s")
    assert "pos_embed is (1, 4097, 384)" in caught.value.data["differences"]


def test_two_tensors_for_one_place_are_not_chosen_between() -> None:
    assert from_published({"norm.x": torch.zeros(1), "encoder.norm.x": torch.ones(1)}) is None
