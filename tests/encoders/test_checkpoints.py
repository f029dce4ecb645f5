"""Checkpoints: every layout that must load, and what is saved."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tspcli.encoders.backbones import build_backbone
from tspcli.encoders.backbones.i3d import INCEPTION_WIDTHS, NUMPY_NAMES, I3d
from tspcli.encoders.checkpoints import load_checkpoint, save_checkpoint
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.errors import CheckpointError
from tspcli.sampling import Sampling


@pytest.fixture(scope="module")
def tiny() -> TspModel:
    torch.manual_seed(3)
    return TspModel("tiny", Heads(5, region=True, gvf_dim=128))


def official(model: TspModel) -> dict[str, Any]:
    """What the official training script saves."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    args = argparse.Namespace(
        backbone="tiny",
        label_columns=["action-label", "temporal-region-label"],
        lr_milestones=[4, 6],
        device="cuda",
        sync_bn=False,
    )
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"milestones": [4, 6], "gamma": 0.01, "last_epoch": 5},
        "epoch": 5,
        "args": args,
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_official_training_checkpoint(tmp_path: Path, tiny: TspModel, zipped: bool) -> None:
    path = tmp_path / "epoch_5.pth"
    torch.save(official(tiny), path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    assert (loaded.backbone, loaded.layout) == ("tiny", "official")
    assert loaded.heads == tiny.heads
    assert loaded.extra["epoch"] == 5
    assert loaded.extra["args"].lr_milestones == [4, 6]
    assert_same(loaded.state, tiny.state_dict())
    assert_same(loaded.build_model().state_dict(), tiny.state_dict())


def test_released_checkpoint_with_the_model_alone(tmp_path: Path, tiny: TspModel) -> None:
    torch.save({"model": tiny.state_dict()}, tmp_path / "x.pth")
    assert load_checkpoint(tmp_path / "x.pth").heads == tiny.heads


def test_prefix_of_parallel_training(tmp_path: Path, tiny: TspModel) -> None:
    state = OrderedDict((f"module.{k}", v) for k, v in tiny.state_dict().items())
    torch.save({"model": state}, tmp_path / "x.pth")
    assert_same(load_checkpoint(tmp_path / "x.pth").state, tiny.state_dict())


@pytest.mark.parametrize("heads", [Heads(), Heads(11), Heads(region=True, gvf_dim=128)])
def test_fewer_heads(tmp_path: Path, heads: Heads) -> None:
    model = TspModel("tiny", heads)
    torch.save({"model": model.state_dict()}, tmp_path / "x.pth")
    loaded = load_checkpoint(tmp_path / "x.pth")
    assert loaded.heads == heads
    assert_same(loaded.build_model().state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["r2plus1d_34", "r2plus1d_18", "r3d_18"])
def test_plain_layout_of_torchvision_and_ig65m(tmp_path: Path, name: str) -> None:
    backbone = build_backbone(name)
    state = dict(backbone.state_dict())
    state["fc.weight"], state["fc.bias"] = torch.randn(400, 512), torch.randn(400)
    torch.save(OrderedDict(state), tmp_path / "x.pth")
    loaded = load_checkpoint(tmp_path / "x.pth")
    assert (loaded.backbone, loaded.layout, loaded.heads) == (name, "plain", Heads(400))
    model = loaded.build_model()
    assert torch.equal(model.fc.bias, state["fc.bias"])
    assert_same(dict(model.features.state_dict()), dict(backbone.state_dict()))


@pytest.mark.parametrize(("name", "head"), [("s3d", "classifier"), ("mvit_v2_s", "head")])
def test_plain_layout_of_other_torchvision_networks(tmp_path: Path, name: str, head: str) -> None:
    from torchvision.models import get_model

    whole = get_model(name, weights=None)
    torch.save(whole.state_dict(), tmp_path / "x.pth")
    loaded = load_checkpoint(tmp_path / "x.pth")
    assert (loaded.backbone, loaded.heads) == (name, Heads(400))
    weight = getattr(whole, head)[1].weight
    assert torch.equal(loaded.build_model().fc.weight, weight.flatten(1))


def test_own_checkpoint_keeps_what_it_is_given(tmp_path: Path, tiny: TspModel) -> None:
    path = tmp_path / "run" / "best.pth"
    names = ("a", "b", "c", "d", "e")
    sampling = Sampling(clip_length=8, stride=4)
    save_checkpoint(
        path,
        tiny,
        backbone="tiny",
        class_names=names,
        sampling=sampling,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5)),
        args={"lr": 0.1},
        extra={"epoch": 3, "optimizer": {"state": {}}},
    )
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.path == path
    assert loaded.class_names == names
    assert loaded.sampling == sampling
    assert loaded.preprocessing == Preprocessing(mean=(0.5, 0.5, 0.5))
    assert loaded.extra["epoch"] == 3
    assert loaded.extra["args"] == argparse.Namespace(backbone="tiny", lr=0.1)
    assert [p.name for p in path.parent.iterdir()] == ["best.pth"]


def test_own_checkpoint_is_official(tmp_path: Path, tiny: TspModel) -> None:
    """The official extraction script drops the heads, adds an fc of one class, and is strict."""
    save_checkpoint(tmp_path / "x.pth", tiny, backbone="tiny")
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(tmp_path / "x.pth", weights_only=True)["model"]
    state = {k: v for k, v in state.items() if "fc" not in k}
    dummy = TspModel("tiny", Heads(1))
    state["fc.weight"], state["fc.bias"] = dummy.fc.weight, dummy.fc.bias
    dummy.load_state_dict(state, strict=True)


def test_region_head_alone_survives_a_round_trip(tmp_path: Path) -> None:
    model = TspModel("tiny", Heads(region=True))
    save_checkpoint(tmp_path / "x.pth", model, backbone="tiny")
    assert load_checkpoint(tmp_path / "x.pth").heads == Heads(region=True)


def test_failed_save_leaves_the_old_file(tmp_path: Path, tiny: TspModel) -> None:
    path = tmp_path / "x.pth"
    save_checkpoint(path, tiny, backbone="tiny")
    before = path.read_bytes()
    with pytest.raises((CheckpointError, pickle.PicklingError, AttributeError)):
        save_checkpoint(path, tiny, backbone="tiny", extra={"f": lambda: 0})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_missing_file_and_foreign_content(tmp_path: Path) -> None:
    paths = [tmp_path / "none.pth", tmp_path / "list.pth", tmp_path / "x.safetensors"]
    torch.save({"model": [1, 2]}, paths[1])
    paths[2].write_bytes(b"\x02" + bytes(7) + b"{}")
    for path in paths:
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert caught.value.data["path"] == path


def test_region_head_alone_is_known_from_the_arguments_of_the_official_script(
    tmp_path: Path,
) -> None:
    model = TspModel("tiny", Heads(region=True))
    args = argparse.Namespace(label_columns=["temporal-region-label"])
    torch.save({"model": model.state_dict(), "args": args}, tmp_path / "x.pth")
    assert load_checkpoint(tmp_path / "x.pth").heads == Heads(region=True)


def test_safetensors_in_the_plain_layout(tmp_path: Path, tiny: TspModel) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    state = tiny.features.state_dict()
    save(dict(state), tmp_path / "x.safetensors")
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert (loaded.backbone, loaded.layout, loaded.heads) == ("tiny", "plain", Heads())
    assert_same(dict(loaded.build_model().features.state_dict()), dict(state))


def test_load_into_another_model(tmp_path: Path, tiny: TspModel) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": tiny.state_dict()}, path)
    other = TspModel("tiny", Heads(3))
    load_checkpoint(path).load_into(other, heads=False)
    assert_same(dict(other.features.state_dict()), dict(tiny.features.state_dict()))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path).load_into(other)
    assert "fc.weight" in str(caught.value.data["differences"])


def numpy_tree() -> dict[str, Any]:
    """Random arrays in the published I3D layout."""
    rng = np.random.default_rng(0)
    shapes = {k: v.shape for k, v in I3d().state_dict().items()}
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}

    def put(root: str, keys: tuple[str, ...], shape: tuple[int, ...]) -> None:
        node = tree[root]
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = rng.random(shape, dtype=np.float32)

    for ours, theirs in NUMPY_NAMES.items():
        out, inputs, *kernel = shapes[f"{ours}.conv.weight"]
        put("params", (*theirs, "Conv_0", "kernel"), (*kernel, inputs, out))
        put("params", (*theirs, "BatchNorm_0", "bias"), (1, 1, 1, 1, out))
        put("batch_stats", (*theirs, "BatchNorm_0", "mean"), (1, 1, 1, 1, out))
        put("batch_stats", (*theirs, "BatchNorm_0", "var"), (1, 1, 1, 1, out))
    put("params", ("Logits/Conv3d_0c_1x1", "Conv_0", "kernel"), (1, 1, 1, 1024, 400))
    put("params", ("Logits/Conv3d_0c_1x1", "Conv_0", "bias"), (400,))
    return tree


def test_numpy_layout_of_i3d(tmp_path: Path) -> None:
    tree = numpy_tree()
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(pickle.dumps(tree, protocol=4))
    loaded = load_checkpoint(path)
    assert (loaded.backbone, loaded.layout, loaded.heads) == ("i3d", "i3d-numpy", Heads(400))
    model = loaded.build_model()
    kernel = tree["params"]["Mixed_4e"]["Branch_1/Conv3d_0b_3x3"]["Conv_0"]["kernel"]
    ours = model.features.get_submodule("mixed_4e.branch1.1.conv").weight
    assert ours.shape == (INCEPTION_WIDTHS["mixed_4e"][2], 144, 3, 3, 3)
    assert ours[5, 7, 0, 1, 2].item() == kernel[0, 1, 2, 7, 5]
    head = tree["params"]["Logits/Conv3d_0c_1x1"]["Conv_0"]["kernel"]
    assert torch.equal(model.fc.weight, torch.from_numpy(head[0, 0, 0].T))


def test_numpy_pickles_that_are_no_i3d(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    whole = pickle.dumps(numpy_tree(), protocol=4)
    incomplete = [pickle.dumps({"params": {}}, protocol=4), whole[:5000]]
    for content in incomplete:
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    path.write_bytes(whole)
    with pytest.raises(CheckpointError):
        load_checkpoint(path, "tiny")


def test_loading_draws_nothing_and_imports_no_compiler(tmp_path: Path) -> None:
    """Both took longer than the first batch."""
    model = TspModel("r3d_18", Heads(7))
    torch.save({"model": model.state_dict()}, tmp_path / "c.pth")
    code = (
        "import sys, torch\n"
        "from tspcli.encoders import load_encoder\n"
        "before = torch.get_rng_state()\n"
        "encoder = load_encoder(sys.argv[1], device='cpu')\n"
        "assert torch.equal(torch.get_rng_state(), before), 'weights were drawn'\n"
        "assert 'torch._dynamo' not in sys.modules, 'the compiler was imported'\n"
        "state = torch.load(sys.argv[1])['model']\n"
        "found = encoder.module.state_dict()\n"
        "assert all(torch.equal(found[name], state[name]) for name in state)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.pth")], check=True)
