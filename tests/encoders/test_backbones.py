"""Backbones: the published tables, torchvision's networks, and the promises of all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.builders.videos import make_video
from tspcli.encoders import backbones, load_encoder
from tspcli.encoders.backbones import (
    BACKBONES,
    BackboneEntry,
    BackboneSpec,
    backbone_spec,
    build_backbone,
)
from tspcli.encoders.state_dicts import backbone_shapes, identify
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.errors import CheckpointError, DependencyError, UsageError
from tspcli.store import open_store

TABLE = {
    "r2plus1d_34": (63_697_175, 152.36, 416),
    "r2plus1d_18": (31_505_325, 81.04, None),
    "r3d_18": (33_371_472, 81.39, None),
}
"""Parameters with a 400-way fc, GFLOP of convolutions and linear layers a clip, state dict keys."""


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules without memory, for counting."""
    with torch.device("meta"):
        yield


def count_gflop(module: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """GFLOP of each convolution and linear layer, two a multiply-add."""
    counted: dict[str, float] = {}

    def hook(name: str) -> Any:
        def count(layer: Any, _: Any, output: torch.Tensor) -> None:
            counted[name] = 2 * output.numel() * layer.weight[0].numel() / 1e9

        return count

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv3d | nn.Linear):
            layer.register_forward_hook(hook(name))
    module(torch.empty(shape, device="meta"))
    return counted


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_operations_are_those_of_the_table(name: str) -> None:
    parameters, gflop, keys = TABLE[name]
    with on_meta():
        model = TspModel(name, Heads(n_actions=400))
        assert sum(p.numel() for p in model.parameters()) == parameters
        counted = count_gflop(model, (1, 3, 16, 112, 112))
    assert sum(counted.values()) == pytest.approx(gflop, abs=0.01)
    if keys is not None:
        assert len(model.state_dict()) == keys


def test_operations_of_r2plus1d_34_by_stage() -> None:
    with on_meta():
        counted = count_gflop(TspModel("r2plus1d_34"), (1, 3, 16, 112, 112))
    expected = {"stem": 1.53, "layer1": 66.59, "layer2": 43.38, "layer3": 32.79, "layer4": 8.07}
    for stage, gflop in expected.items():
        found = sum(v for k, v in counted.items() if k.startswith(f"features.{stage}."))
        assert found == pytest.approx(gflop, abs=0.01), stage


def test_state_dict_of_r2plus1d_34() -> None:
    shapes = backbone_shapes("r2plus1d_34")
    assert shapes["stem.0.weight"] == (45, 3, 1, 7, 7)
    assert shapes["layer1.0.conv1.0.0.weight"] == (144, 64, 1, 3, 3)
    # Where a stage begins, the two convolutions of a block have middle planes of their own.
    assert shapes["layer2.0.conv1.0.0.weight"] == (230, 64, 1, 3, 3)
    assert shapes["layer2.0.conv2.0.0.weight"] == (288, 128, 1, 3, 3)
    blocks = {name.split(".conv")[0] for name in shapes if ".conv1." in name}
    assert [sum(b.startswith(f"layer{i}.") for b in blocks) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]


def test_batch_norms_of_r2plus1d_34() -> None:
    with on_meta():
        norms = [
            m for m in build_backbone("r2plus1d_34").modules() if isinstance(m, nn.BatchNorm3d)
        ]
    assert len(norms) == 2 + 4 * 16 + 3
    assert {(n.eps, n.momentum) for n in norms} == {(1e-3, 0.9)}


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18"])
def test_resnets_are_torchvisions(name: str) -> None:
    from torchvision.models import get_model

    torch.manual_seed(1)
    theirs = get_model(name, weights=None).eval()
    theirs.fc = nn.Identity()
    ours = build_backbone(name).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip), theirs(clip))


@pytest.mark.parametrize("name", BACKBONES)
def test_conformance_of_every_backbone(name: str) -> None:
    """What each spec states is so."""
    spec = backbone_spec(name)
    assert spec.name == name and BACKBONES[name].summary.endswith(".")
    height, width = spec.preprocessing.crop
    frames = spec.sampling.clip_length
    seen: list[torch.Tensor] = []
    with on_meta():
        module = spec.build()
        layer = module.get_submodule(spec.layer)
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
        features = module(torch.empty(2, 3, frames, height, width))
    assert features.shape == (2, spec.feature_dim) and len(seen) == 1
    if spec.pooling == "mean":
        assert seen[0].shape[:2] == features.shape and seen[0].ndim == 5
    elif spec.pooling == "token":
        assert seen[0][:, 0].shape == features.shape and seen[0].ndim == 3
    names = [n for n, _ in module.named_parameters()]
    assert all(any(n.startswith(stem) for n in names) for stem in spec.stem)
    assert not any(n.startswith(spec.plain_head + ".") for n in names)
    # Nearly all parameters lie in blocks, no block within another, and each block is called.
    blocks = spec.find_blocks(module)
    inside = [id(p) for block in blocks for p in block.parameters()]
    assert len(inside) == len(set(inside)) >= 0.9 * len(names)
    assert not any(isinstance(block, nn.ModuleList) for block in blocks)
    spec.check_clip_length(frames)


def test_features_are_the_mean_of_the_layer_or_its_first_token() -> None:
    torch.manual_seed(4)
    for name, size in (("tiny", 32), ("mc3_18", 32), ("mvit_v2_s", 224)):
        spec = backbone_spec(name)
        module = spec.build().eval()
        seen: list[torch.Tensor] = []
        module.get_submodule(spec.layer).register_forward_hook(
            lambda _, inputs, output, seen=seen: seen.append(output)
        )
        with torch.inference_mode():
            features = module(torch.randn(1, 3, spec.sampling.clip_length, size, size))
        pooled = seen[0].mean((2, 3, 4)) if spec.pooling == "mean" else seen[0][:, 0]
        torch.testing.assert_close(features, pooled)


def torchvision_weights() -> dict[str, Any]:
    from torchvision.models import get_weight

    enums = {
        "r2plus1d_18": "R2Plus1D_18",
        "r3d_18": "R3D_18",
        "mc3_18": "MC3_18",
        "s3d": "S3D",
        "mvit_v2_s": "MViT_V2_S",
        "swin3d_t": "Swin3D_T",
        "swin3d_s": "Swin3D_S",
        "swin3d_b": "Swin3D_B",
    }
    return {name: get_weight(f"{enum}_Weights.KINETICS400_V1") for name, enum in enums.items()}


def test_preprocessing_is_that_of_torchvisions_weights() -> None:
    for name, weights in torchvision_weights().items():
        theirs, ours = weights.transforms(), backbone_spec(name).preprocessing
        # One number is the short side, two are height and width.
        for size in ((240, 320), (480, 270)):
            expected = tuple(theirs.resize_size)
            if len(expected) == 1:
                short = expected[0]
                long = int(short * max(size) / min(size))
                expected = (short, long) if size[0] < size[1] else (long, short)
            assert ours.resize.target(*size) == expected, name
        assert ours.crop == tuple(theirs.crop_size), name
        assert (list(ours.mean), list(ours.std)) == (list(theirs.mean), list(theirs.std)), name


def test_headless_torchvision_networks_keep_their_classification() -> None:
    """What the head says of our features is what torchvision's whole network says."""
    from torchvision.models import get_model

    torch.manual_seed(2)
    for name, head in (("s3d", "classifier"), ("swin3d_t", "head"), ("mc3_18", "fc")):
        spec = backbone_spec(name)
        whole = get_model(name, weights=None).eval()
        layer = getattr(whole, head)
        ours = spec.build().eval()
        ours.load_state_dict(
            {k: v for k, v in whole.state_dict().items() if not k.startswith(spec.plain_head + ".")}
        )
        size = 224 if name == "s3d" else 64
        clip = torch.randn(1, 3, 14 if name == "s3d" else 4, size, size)
        with torch.inference_mode():
            features = ours(clip)
            if name == "s3d":
                features = features[:, :, None, None, None]
            torch.testing.assert_close(
                layer(features).flatten(1), whole(clip), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(("name", "length"), [("mvit_v2_s", 32), ("s3d", 8)])
def test_clip_lengths_that_do_not_fit_are_refused(name: str, length: int) -> None:
    with pytest.raises(UsageError) as caught:
        backbone_spec(name).check_clip_length(length)
    assert caught.value.data == {"option": "clip_length", "value": length}


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone("r2plus1d_35")
    assert caught.value.data["nearest"] == ["r2plus1d_34"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "x", BackboneEntry("x", "absent_package:X", "A toy.", "toys"))
    with pytest.raises(DependencyError) as caught:
        build_backbone("x")
    assert caught.value.data["backbone"] == "x"
    assert "tspcli[toys]" in str(caught.value.remedy)


def test_the_table_imports_no_torch() -> None:
    code = (
        "import sys; from tspcli.encoders.backbones import BACKBONES;"
        "assert 'tiny' in BACKBONES and 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


TOY = '''
import torch
from tspcli.encoders.backbones import BackboneEntry, BackboneSpec

class Colours(torch.nn.Module):
    """Three features: the mean of each colour, weighted."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.same = torch.nn.Identity()

    def forward(self, x):
        return self.same(x * self.scale.view(3, 1, 1, 1)).mean((2, 3, 4))

TOY = BackboneSpec("toy", Colours, 3, layer="same", pooling="mean")
ENTRY = BackboneEntry("toy", "toy_backbone:TOY", "Mean colours.")
'''


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which another package that adds a backbone is installed."""
    package = tmp_path / "site"
    facts = package / "toy_backbone-1.0.dist-info"
    facts.mkdir(parents=True)
    (package / "toy_backbone.py").write_text(TOY)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-backbone\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[tspcli.backbones]\ntoy = toy_backbone:ENTRY\n")
    return {**os.environ, "PYTHONPATH": str(package)}


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_backbone_from_another_package_extracts(
    tmp_path: Path, outside: dict[str, str], devices: str
) -> None:
    """The real command, with the encoder in its own process and in worker processes."""
    videos = [make_video(tmp_path / f"{name}.mp4", n_frames=40, fps=30) for name in "ab"]
    out = tmp_path / "toy.h5"
    tsp = [sys.executable, "-m", "tspcli", "extract", "--backbone", "toy", "--weights", "random"]
    tsp += ["--device", devices, "--workers", "1", "--clip-length", "8", "--out", str(out)]
    for video in videos:
        tsp += ["--videos", str(video)]
    subprocess.run(tsp, check=True, env=outside, timeout=240)
    with open_store(out) as store:
        assert sorted(store) == ["a", "b"] and store["a"].rows.shape[1] == 3
        assert store.metadata.settings["backbone"] == "toy"


def test_the_documented_spec_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "adding-a-backbone.md").read_text()
    found: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], found)
    assert isinstance(found["MYNET"], BackboneSpec)


def test_a_backbone_added_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "MEAN", BackboneSpec("mean", Mean, 3), raising=False)
    entry = BackboneEntry("mean", "tspcli.encoders.backbones:MEAN", "The mean of each colour.")
    monkeypatch.setitem(BACKBONES, "mean", entry)
    encoder = load_encoder("random", backbone="mean", device="cpu")
    assert encoder.encode_frames(torch.zeros(1, 16, 112, 112, 3)).shape == (1, 3)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3, 4))


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 2)


def own_name(name: str) -> str | None:
    return None if name.startswith("aux.") else name.replace("conv1", "stem")


def test_published_names_become_the_backbones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BackboneSpec("renamed", Renamed, 2, rename=own_name, key_prefixes=("net.",))
    monkeypatch.setattr(backbones, "RENAMED", spec, raising=False)
    entry = BackboneEntry("renamed", "tspcli.encoders.backbones:RENAMED", "A renamed layer.")
    monkeypatch.setitem(BACKBONES, "renamed", entry)
    weight, bias = torch.rand(2, 3), torch.rand(2)
    head = {"fc.weight": torch.rand(5, 2), "fc.bias": torch.rand(5)}
    own = {"stem.weight": weight, "stem.bias": bias}
    foreign = {"conv1.weight": weight, "conv1.bias": bias, "aux.x": bias}
    for state in (own, foreign, {f"net.{name}": value for name, value in foreign.items()}):
        found = identify({**state, **head}, Path("x.pth"), backbone="renamed")
        assert found.heads.n_actions == 5
        assert torch.equal(found.state["features.stem.weight"], weight)
        assert set(found.state) == {"features.stem.weight", "features.stem.bias", *head}
    # Two tensors under one name: which of them is meant is not guessed.
    with pytest.raises(CheckpointError):
        identify({**own, **foreign, **head}, Path("x.pth"), backbone="renamed")
