"""The ViT of VideoMAE: its arithmetic, the layouts of its published files, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.builders.networks import perturbed
from tspcli.encoders import backbones
from tspcli.encoders.backbones import BACKBONES, BackboneEntry, backbone_spec
from tspcli.encoders.backbones.videomae import (
    VIDEOMAE_B,
    VideoVit,
    from_published,
    position_table,
)
from tspcli.encoders.backbones.vit_parts import project
from tspcli.encoders.checkpoints import load_checkpoint
from tspcli.encoders.loading import describe_weights
from tspcli.encoders.state_dicts import backbone_shapes, digest_of_keys, identify, shapes_of
from tspcli.errors import CheckpointError

State = dict[str, Tensor]
WIDTH, HEADS, CLASSES = 48, 3, 5


def small(depth: int = 2) -> VideoVit:
    return VideoVit(WIDTH, depth, HEADS, 16, 4 * WIDTH, size=32, frames=4)


@pytest.fixture(scope="module")
def original() -> State:
    """A small checkpoint with the names of the original code, all values random."""
    torch.manual_seed(0)
    state = perturbed(small()).state_dict()
    return {
        **state,
        "head.weight": torch.randn(CLASSES, WIDTH),
        "head.bias": torch.randn(CLASSES),
    }


@pytest.fixture
def in_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The small network as a backbone named ``small_vit``."""
    keys = digest_of_keys(shapes_of(small().state_dict()))
    spec = replace(VIDEOMAE_B, name="small_vit", build=small, feature_dim=WIDTH, keys=keys)
    monkeypatch.setattr(backbones, "SMALL", spec, raising=False)
    entry = BackboneEntry("small_vit", "tspcli.encoders.backbones:SMALL", "A small ViT.")
    monkeypatch.setitem(BACKBONES, "small_vit", entry)
    yield
    backbone_shapes.cache_clear()


def as_transformers(state: State, q_bias: str = "q_bias", v_bias: str = "v_bias") -> State:
    """The names that model hubs hold; version 5 of the library calls the biases otherwise."""
    found: State = {}
    for name, tensor in state.items():
        block = ".".join(name.split(".")[:2]).replace("blocks", "videomae.encoder.layer")
        part = name.split(".", 2)[2] if name.startswith("blocks.") else ""
        if part == "attn.qkv.weight":
            for third, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{block}.attention.attention.{third}.weight"] = value
        elif part in ("attn.q_bias", "attn.v_bias"):
            last = q_bias if part == "attn.q_bias" else v_bias
            found[f"{block}.attention.attention.{last}"] = tensor
        elif part:
            for own, theirs in (
                ("attn.proj", "attention.output.dense"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
            ):
                if part.startswith(own):
                    found[f"{block}.{part.replace(own, theirs)}"] = tensor
        else:
            for own, theirs in (
                ("patch_embed.proj", "videomae.embeddings.patch_embeddings.projection"),
                ("head", "classifier"),
            ):
                name = name.replace(own, theirs)
            found[name] = tensor
    assert len(found) >= len(state)
    return found


def as_transformers_5(state: State) -> State:
    return as_transformers(state, "query.bias", "value.bias")


def as_mmaction(state: State) -> State:
    names = (
        ("patch_embed.proj.", "patch_embed.projection."),
        ("mlp.fc1.", "mlp.layers.0.0."),
        ("mlp.fc2.", "mlp.layers.1."),
        ("head.", "cls_head.fc_cls."),
    )
    found: State = {"backbone.pos_embed": position_table(8, WIDTH)}
    for name, tensor in state.items():
        for own, theirs in names:
            name = name.replace(own, theirs)
        found[name if name.startswith("cls_head") else f"backbone.{name}"] = tensor
    return found


def with_fused_bias(state: State) -> State:
    """One bias for queries, keys and values; that of the keys is zero."""
    found = dict(state)
    for name in state:
        if name.endswith(".q_bias"):
            query, value = found.pop(name), found.pop(name.replace("q_bias", "v_bias"))
            fused = torch.cat([query, torch.zeros_like(query), value])
            found[name.replace("q_bias", "qkv.bias")] = fused
    return found


def with_zero_key_bias(state: State) -> State:
    found = as_transformers_5(state)
    zeros = {n.replace(".query.", ".key."): torch.zeros(WIDTH) for n in found if "query.bias" in n}
    return found | zeros


@pytest.mark.parametrize(
    "layout",
    [
        dict,
        as_transformers,
        as_transformers_5,
        with_zero_key_bias,
        as_mmaction,
        with_fused_bias,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {
            name if name.startswith("head.") else f"encoder.{name}": tensor
            for name, tensor in state.items()
        },
    ],
)
@pytest.mark.parametrize("wrapper", ["", "model", "module", "state_dict"])
def test_every_published_layout_gives_the_same_tensors(
    layout: Callable[[State], State],
    wrapper: str,
    original: State,
    in_table: None,
    tmp_path: Path,
) -> None:
    path = tmp_path / "published.pth"
    state = layout(original)
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    found = load_checkpoint(path)
    assert found.backbone == "small_vit" and found.heads.n_actions == CLASSES
    for name, tensor in original.items():
        head = name.startswith("head.")
        own = name.replace("head.", "fc.") if head else f"features.{name}"
        assert torch.equal(found.state[own], tensor), name


def test_a_missing_bias_is_refused(original: State, in_table: None) -> None:
    """Never taken for zeros."""
    for layout in (dict, as_transformers, as_transformers_5, as_mmaction):
        state = layout(original)
        lost = next(n for n in state if n.endswith(("q_bias", "query.bias")))
        del state[lost]
        with pytest.raises(CheckpointError) as caught:
            identify(state, Path("x.pth"), backbone="small_vit")
        assert "blocks.0.attn.q_bias" in caught.value.data["differences"]


def test_a_bias_of_keys_is_refused(original: State, in_table: None) -> None:
    for state in (with_fused_bias(original), with_zero_key_bias(original)):
        name = next(n for n in state if n.endswith(("qkv.bias", "key.bias")))
        with pytest.raises(CheckpointError) as caught:
            identify({**state, name: state[name] + 1}, Path("x.pth"), backbone="small_vit")
        assert "1 unexpected" in caught.value.data["differences"]


def test_other_positions_are_refused(original: State, in_table: None) -> None:
    """Learned ones, for which this network has no place."""
    state = {**original, "pos_embed": position_table(8, WIDTH) + 0.01}
    with pytest.raises(CheckpointError) as caught:
        identify(state, Path("x.pth"), backbone="small_vit")
    assert "pos_embed" in caught.value.data["differences"]


def test_two_tensors_for_one_place_are_not_chosen_between(original: State) -> None:
    assert from_published({**original, "head.bias": torch.zeros(1)}) is not None
    assert from_published({**original, "classifier.bias": torch.zeros(1)}) is None


def test_networks_that_two_backbones_share_have_to_be_named() -> None:
    """Their frames differ: VideoMAE v2 squashes them and does not normalise."""
    shapes = backbone_shapes("videomae_b")
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    with pytest.raises(CheckpointError) as caught:
        identify(state, Path("x.pth"))
    assert caught.value.data["backbones"] == ["videomae_b", "videomae_v2_b"]
    for name in caught.value.data["backbones"]:
        assert identify(state, Path("x.pth"), backbone=name).backbone == name


def test_weights_of_two_backbones_are_described_for_the_named_one(
    original: State, in_table: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = replace(backbone_spec("small_vit"), name="twin_vit")
    monkeypatch.setattr(backbones, "TWIN", twin, raising=False)
    entry = BackboneEntry("twin_vit", "tspcli.encoders.backbones:TWIN", "Its twin.")
    monkeypatch.setitem(BACKBONES, "twin_vit", entry)
    path = tmp_path / "published.pth"
    torch.save({"model": original}, path)
    for name in (None, "tiny"):
        with pytest.raises(CheckpointError) as caught:
            describe_weights(path, name)
        assert caught.value.data["backbones"] == ["small_vit", "twin_vit"]
    assert describe_weights(path, "twin_vit").backbone == "twin_vit"


def test_positions_are_the_originals() -> None:
    """The formula of its source, in numpy."""
    position, channel = np.arange(1568)[:, None], np.arange(384)[None]
    angle = position / np.power(10000, 2 * (channel // 2) / 384)
    angle[:, 0::2], angle[:, 1::2] = np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])
    found = position_table(1568, 384)[0]
    assert (found - torch.tensor(angle, dtype=torch.float32)).abs().max() < 1e-7


def test_other_sizes_interpolate_the_positions_of_each_time() -> None:
    torch.manual_seed(1)
    module = small().eval()
    clip = torch.randn(1, 3, 4, 48, 48)
    table = position_table(8, WIDTH)[0].reshape(2, 2, 2, WIDTH)
    planes = torch.nn.functional.interpolate(
        table.permute(0, 3, 1, 2), (3, 3), mode="bicubic", align_corners=False
    )
    larger = VideoVit(WIDTH, 2, HEADS, 16, 4 * WIDTH, size=48, frames=4).eval()
    larger.load_state_dict(module.state_dict())
    larger.positions = planes.permute(0, 2, 3, 1).reshape(1, 18, WIDTH)
    with torch.inference_mode():
        torch.testing.assert_close(module(clip), larger(clip))


@pytest.mark.parametrize("bias", [True, False])
def test_queries_keys_and_values_in_training_and_with_an_adapter(bias: bool) -> None:
    """One product or three; a layer that replaces the own one is not passed by."""
    torch.manual_seed(2)
    layer, x = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=bias), torch.randn(2, 5, WIDTH)
    more = None if bias else torch.randn(3 * WIDTH)
    trained = project(layer, x, more)
    assert all(part.requires_grad for part in trained)
    with torch.inference_mode():
        for part, expected in zip(project(layer, x, more), trained, strict=True):
            torch.testing.assert_close(part, expected)
        adapted = torch.nn.Sequential(layer, torch.nn.ReLU())
        assert min(part.min() for part in project(adapted, x)) == 0


def test_rows_equal_those_of_transformers(original: State) -> None:
    """With the same random weights; heads and epsilons are set, its configurations err in them."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        layer_norm_eps=1e-6,
        num_labels=CLASSES,
    )
    theirs = transformers.VideoMAEForVideoClassification(config).eval()
    theirs.fc_norm.eps = 1e-6
    names = set(theirs.state_dict())
    layouts = [as_transformers(original), as_transformers_5(original)]
    theirs.load_state_dict(next(state for state in layouts if set(state) == names))
    ours = small().eval()
    ours.load_state_dict({k: v for k, v in original.items() if not k.startswith("head.")})
    clips = torch.randn(3, 3, 4, 32, 32)
    with torch.inference_mode():
        hidden = theirs.videomae(clips.transpose(1, 2)).last_hidden_state
        expected = theirs.fc_norm(hidden.mean(1))
        found = ours(clips)
        logits = theirs(clips.transpose(1, 2)).logits
    assert expected.abs().max() > 0.5
    assert (found - expected).abs().max() < 5e-6
    own = found @ original["head.weight"].T + original["head.bias"]
    torch.testing.assert_close(own, logits, rtol=1e-4, atol=1e-4)
