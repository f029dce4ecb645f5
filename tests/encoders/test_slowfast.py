"""SlowFast: its arithmetic, its fast form, and the layouts of its published files."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.builders.networks import perturbed, relative, shaken
from tspcli.encoders import backbones
from tspcli.encoders.backbones import BACKBONES, BackboneEntry, backbone_spec
from tspcli.encoders.backbones.slowfast import SLOWFAST_R50, SlowFast, pooled, slow_frames
from tspcli.encoders.checkpoints import load_checkpoint
from tspcli.encoders.fused import inference_form
from tspcli.encoders.state_dicts import backbone_shapes, digest_of_keys, shapes_of
from tspcli.errors import CheckpointError

State = dict[str, Tensor]
WIDTH, CLASSES = 16, 5
DEPTHS, FUSION = (1, 2, 1, 1), 7


def small() -> SlowFast:
    return SlowFast(DEPTHS, FUSION, WIDTH)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A narrow network as after training: no two parameters are alike."""
    torch.manual_seed(0)
    return shaken(perturbed(small()))


@pytest.fixture(scope="module")
def original(trained: nn.Module) -> State:
    """Its checkpoint, in the names of pytorchvideo."""
    torch.manual_seed(1)
    return {
        **trained.state_dict(),
        "blocks.6.proj.weight": torch.randn(CLASSES, 36 * WIDTH),
        "blocks.6.proj.bias": torch.randn(CLASSES),
    }


@pytest.fixture
def in_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The narrow network in the place of R50."""
    keys = digest_of_keys(shapes_of(small().state_dict()))
    spec = replace(SLOWFAST_R50, build=small, feature_dim=36 * WIDTH, keys=keys)
    monkeypatch.setattr(backbones, "SMALL", spec, raising=False)
    entry = BackboneEntry("slowfast_r50", "tspcli.encoders.backbones:SMALL", "A narrow one.")
    monkeypatch.setitem(BACKBONES, "slowfast_r50", entry)
    backbone_shapes.cache_clear()
    yield
    backbone_shapes.cache_clear()


def as_pyslowfast(state: State) -> State:
    """The names of PySlowFast's own files."""
    found = {}
    for name, tensor in state.items():
        stage = f"s{int(name.split('.')[1]) + 1}"
        for own, theirs in (
            (r"^blocks\.6\.proj", "head.projection"),
            (r"^blocks\.0\.multipathway_blocks\.(\d)\.conv", r"s1.pathway\1_stem.conv"),
            (r"^blocks\.0\.multipathway_blocks\.(\d)\.norm", r"s1.pathway\1_stem.bn"),
            (r"^blocks\.\d\.multipathway_fusion\.conv_fast_to_slow", f"{stage}_fuse.conv_f2s"),
            (r"^blocks\.\d\.multipathway_fusion\.norm", f"{stage}_fuse.bn"),
            (
                r"^blocks\.\d\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)",
                rf"{stage}.pathway\1_res\2",
            ),
            (r"branch1_conv", "branch1"),
            (r"branch1_norm", "branch1_bn"),
            (r"conv_([abc])", r"\1"),
            (r"norm_([abc])", r"\1_bn"),
        ):
            name = re.sub(own, theirs, name)
        found[name] = tensor
    return found


def as_caffe2(state: State) -> dict[str, object]:
    """The blobs of the model zoo: ``t_`` is the fast pathway."""
    blobs: dict[str, object] = {
        "lr": torch.zeros(1).numpy(),
        "pred_w_momentum": torch.zeros(2).numpy(),
    }
    parts = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    for name, tensor in as_pyslowfast(state).items():
        place, _, part = name.rpartition(".")
        if part == "num_batches_tracked":
            continue
        kind = f"_bn_{parts[part]}" if re.search(r"bn$", place) else f"_{part[0]}"
        stage = int(name[1]) if name[0] == "s" else 0
        fast = "t_" if "pathway1" in place or "_fuse" in place else ""
        if not stage:
            blob = "pred"
        elif "_stem" in place:
            blob = f"{fast}{'res_' if '_bn' in kind else ''}conv1"
        elif stage == 1:
            blob = "t_pool1_subsample"
        elif "_fuse" in place:
            blob = f"t_res{stage}_{DEPTHS[stage - 2] - 1}_branch2c_bn_subsample"
        else:
            block = re.search(r"_res(\d+)", place)
            assert block is not None
            branch = re.search(r"branch2\.([abc])", place)
            blob = f"{fast}res{stage}_{block[1]}_branch{'1' if branch is None else f'2{branch[1]}'}"
        blobs[blob + kind] = tensor.numpy()
    return blobs


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]  # stubs lack it
    """Writes the bytes of arrays as Python 2 did: as strings."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def write_blobs(path: Path, blobs: dict[str, object]) -> Path:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump({"blobs": blobs, "cfg": "NUM_GPUS: 8"})
    return path


def require_equal(path: Path, original: State) -> None:
    found = load_checkpoint(path)
    assert found.backbone == "slowfast_r50" and found.heads.n_actions == CLASSES
    for name, tensor in original.items():
        own = f"features.{name}".replace("features.blocks.6.proj", "fc")
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(found.state[own], tensor), name
    found.build_model()


@pytest.mark.parametrize("layout", [dict, as_pyslowfast])
def test_files_of_torch_are_read(
    layout: type, original: State, in_table: None, tmp_path: Path
) -> None:
    path = tmp_path / "SLOWFAST_8x8.pyth"
    torch.save({"model_state": layout(original), "epoch": 3}, path)
    require_equal(path, original)


def test_files_of_caffe2_are_read(original: State, in_table: None, tmp_path: Path) -> None:
    require_equal(write_blobs(tmp_path / "SLOWFAST_8x8_R50.pkl", as_caffe2(original)), original)


def test_a_file_of_caffe2_that_lacks_a_blob_is_refused(
    original: State, in_table: None, tmp_path: Path
) -> None:
    blobs = as_caffe2(original)
    del blobs["t_res2_0_branch2a_bn_riv"]
    path = write_blobs(tmp_path / "part.pkl", blobs)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, "slowfast_r50")
    missing = "blocks.1.multipathway_blocks.1.res_blocks.0.branch2.norm_a.running_var"
    assert missing in caught.value.data["differences"]


def test_pooling_is_that_of_ego4d() -> None:
    """Windows of 7 x 7 in a map of 8 x 8; at 224 pixels the plain mean."""
    torch.manual_seed(2)
    x = torch.randn(2, 3, 8, 8, 8)
    expected = F.avg_pool3d(x, (8, 7, 7), stride=1).mean((2, 3, 4))
    torch.testing.assert_close(pooled(x), expected)
    weights = torch.tensor([1.0, 2, 2, 2, 2, 2, 2, 1]) / 14
    torch.testing.assert_close(pooled(x), torch.einsum("bcthw,h,w->bc", x / 8, weights, weights))
    torch.testing.assert_close(pooled(x[..., :7, :7]), x[..., :7, :7].mean((2, 3, 4)))


def test_the_slow_pathways_frames() -> None:
    assert slow_frames(32) == torch.linspace(0, 31, 8).long().tolist()
    assert slow_frames(64) == torch.linspace(0, 63, 16).long().tolist()
    assert slow_frames(4) == [0]


@pytest.mark.parametrize("size", [64, 256])
def test_the_fast_form_computes_the_same(trained: nn.Module, size: int) -> None:
    clips = torch.randn(2, 3, 8, size, size)
    quick = inference_form(trained, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        assert relative(quick(clips), trained(clips)) < 1e-5


def test_reduced_precision_stays_near(trained: nn.Module) -> None:
    clips = torch.randn(2, 3, 8, 64, 64)
    quick = inference_form(trained, torch.device("cpu"), torch.bfloat16)
    with torch.inference_mode():
        found, expected = quick(clips.bfloat16()), trained(clips)
    assert found.dtype == torch.float32
    assert ((found - expected).norm() / expected.norm()).item() < 2e-2


def test_rows_equal_those_of_pytorchvideo(trained: nn.Module, original: State) -> None:
    create = pytest.importorskip("pytorchvideo.models.slowfast").create_slowfast
    from pytorchvideo.models import slowfast

    depth = {"_MODEL_STAGE_DEPTH": {50: DEPTHS}}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in depth.items():
            patch.setattr(slowfast, name, value)
        theirs = create(
            stem_dim_outs=(WIDTH, WIDTH // 8),
            slowfast_fusion_conv_kernel_size=(FUSION, 1, 1),
            model_num_class=CLASSES,
            head_pool_kernel_sizes=((8, 7, 7), (32, 7, 7)),
        ).eval()
    theirs.load_state_dict(original)
    for size in (224, 256):
        clip = torch.randn(1, 3, 32, size, size)
        slow = clip[:, :, torch.linspace(0, 31, 8).long()]
        with torch.inference_mode():
            x = [slow, clip]
            for block in theirs.blocks[:6]:
                x = block(x)
            expected = x.mean((2, 3, 4))
            found = trained(clip)
        assert expected.abs().max() > 0.05
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_networks_have_the_sizes_of_the_published_ones() -> None:
    """662 tensors in R50 with its head, as both publishers count them."""
    shapes = backbone_shapes("slowfast_r50")
    assert len(shapes) == 660
    place = "multipathway_fusion.conv_fast_to_slow.weight"
    assert shapes[f"blocks.0.{place}"] == (16, 8, 7, 1, 1)
    assert backbone_shapes("slowfast_r101")[f"blocks.0.{place}"] == (16, 8, 5, 1, 1)
    first = "blocks.1.multipathway_blocks.0.res_blocks.0.branch1_conv.weight"
    assert shapes[first] == (256, 80, 1, 1, 1)
    assert backbone_spec("slowfast_r101").feature_dim == 2304
