"""The fast forms compute what the plain modules compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.builders.networks import clips, relative, shaken
from tspcli.encoders import fused
from tspcli.encoders.backbones import backbone_spec, build_backbone
from tspcli.encoders.backbones.resnet3d import VideoResNet

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        ("r2plus1d_18", 16, 32),
        ("r2plus1d_18", 5, 50),
        ("r3d_18", 16, 32),
        ("r3d_18", 7, 49),
        ("tiny", 16, 112),
        ("i3d", 16, 64),
        ("i3d", 11, 75),
    ],
)
def test_equal_to_the_plain_module(name: str, frames: int, size: int, convolutions: str) -> None:
    torch.manual_seed(7)
    plain = shaken(build_backbone(name))
    quick = fused.inference_form(plain, CPU, torch.float32)
    x = clips(2, frames, size)
    before = x.clone()
    with torch.inference_mode():
        expected = plain(x)
        assert relative(quick(x), expected) <= 1e-5
        assert relative(quick(x), expected) <= 1e-5
    assert torch.equal(x, before)


def test_r2plus1d_34_equal_to_the_plain_module() -> None:
    torch.manual_seed(8)
    plain = shaken(build_backbone("r2plus1d_34"))
    quick = fused.inference_form(plain, CPU, torch.float32)
    x = clips(2, 16, 32)
    with torch.inference_mode():
        assert relative(quick(x), plain(x)) <= 1e-5


def test_one_form_takes_every_shape() -> None:
    """Filters are packed for the first shape that comes; all others have to work as well."""
    torch.manual_seed(9)
    plain = shaken(build_backbone("tiny"))
    quick = fused.inference_form(plain, CPU, torch.float32)
    with torch.inference_mode():
        for count, frames, size in ((4, 16, 64), (2, 16, 64), (3, 8, 112), (2, 1, 33), (4, 16, 64)):
            x = clips(count, frames, size)
            assert relative(quick(x), plain(x)) <= 1e-5
        alone = quick(x[:1])
        torch.testing.assert_close(alone, plain(x[:1]), rtol=1e-4, atol=1e-5)


def test_channels_in_any_memory_order() -> None:
    plain = shaken(build_backbone("tiny"))
    quick = fused.inference_form(plain, CPU, torch.float32)
    x = clips(2, 8, 48)
    frames = x.permute(0, 2, 3, 4, 1).contiguous()
    with torch.inference_mode():
        torch.testing.assert_close(quick(frames.permute(0, 4, 1, 2, 3)), quick(x))


def test_the_plain_module_is_left_alone() -> None:
    plain = shaken(build_backbone("tiny"))
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    quick = fused.inference_form(plain, CPU, torch.float32)
    with torch.inference_mode():
        quick(clips(1, 8, 32))
    assert all(torch.equal(before[k], v) for k, v in plain.state_dict().items())


def test_filled_planes_stay_empty() -> None:
    """A width that is no multiple of 16 is filled up inside and cut nowhere."""
    plain = shaken(
        VideoResNet((1, 1, 1, 1), factorized=True, widths=(10, 12, 14, 18), stem_middle=7)
    )
    quick = fused.inference_form(plain, CPU, torch.float32)
    assert isinstance(quick, fused.FastVideoResNet)
    spatial, temporal = quick.stem
    assert spatial.bias.shape == (16,) and temporal.bias.shape == (10,)
    x = clips(3, 6, 40)
    with torch.inference_mode():
        assert relative(quick(x), plain(x)) <= 1e-5


@pytest.mark.parametrize("name", ["tiny", "r2plus1d_18", "i3d", "swin3d_t"])
def test_reduced_precision_stays_near(name: str, convolutions: str) -> None:
    torch.manual_seed(10)
    plain = shaken(build_backbone(name))
    quick = fused.inference_form(plain, CPU, torch.bfloat16, backbone_spec(name).layer)
    x = clips(2, 8, 64)
    with torch.inference_mode():
        found, expected = quick(x.bfloat16()).float(), plain(x)
    assert ((found - expected).norm() / expected.norm()).item() < 2e-2


def test_bfloat16_is_fused_where_the_processor_has_it() -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    assert fused.has_fused_convolutions(torch.bfloat16)
    assert not fused.has_fused_convolutions(torch.float16)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "i3d"])
def test_equal_on_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from tspcli.encoders.precision import arithmetic

    device = torch.device("cuda")
    plain = shaken(build_backbone(name))
    quick = fused.inference_form(plain, device, torch.float32)
    x = clips(2, 16, 64)
    with torch.inference_mode(), arithmetic(device, "fp32"):
        assert relative(quick(x.to(device)).cpu(), plain(x)) <= 1e-5


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [("tiny", 8, 64), ("i3d", 16, 64), ("mc3_18", 8, 48), ("swin3d_t", 4, 64)],
)
def test_features_of_reduced_precision_are_not_rounded_once_more(
    name: str, frames: int, size: int
) -> None:
    torch.manual_seed(10)
    plain = shaken(build_backbone(name))
    quick = fused.inference_form(plain, CPU, torch.bfloat16, backbone_spec(name).layer)
    x = clips(3, frames, size)
    with torch.inference_mode():
        found, exact = quick(x.bfloat16()), plain(x)
    assert found.dtype == torch.float32
    rounded = found.bfloat16().float()
    assert not torch.equal(found, rounded)
    assert (found - exact).norm() < 0.99 * (rounded - exact).norm()


def test_features_of_float32_are_the_plain_mean() -> None:
    plain = shaken(build_backbone("tiny"))
    quick = fused.inference_form(plain, CPU, torch.float32)
    assert isinstance(quick, fused.FastVideoResNet)
    seen: list[Tensor] = []
    quick.blocks[-1].register_forward_hook(lambda _, args, out: seen.append(out))
    with torch.inference_mode():
        found = quick(clips(2, 8, 48))
    assert torch.equal(found, seen[0].mean(dim=(1, 2, 3)))


def test_what_a_gpu_runs_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler sees all of it at once, and would say so here if it did not."""
    monkeypatch.setattr(fused, "has_fused_convolutions", lambda dtype: False)
    quick = fused.inference_form(build_backbone("tiny"), CPU, torch.bfloat16)
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    x = clips(2, 8, 32).bfloat16()
    with torch.inference_mode():
        whole = torch.compile(quick, dynamic=False, fullgraph=True, backend=count)
        assert torch.equal(whole(x), quick(x))
        whole(x)
    assert len(graphs) == 1
