"""The TSP model's heads and their names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tspcli.core.regions import REGION_CLASSES
from tspcli.encoders.tsp_model import Heads, Logits, TspModel
from tspcli.errors import UsageError


class Mean(nn.Module):
    """A backbone of three features: the mean of each colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4))


def model(heads: Heads) -> TspModel:
    torch.manual_seed(0)
    return TspModel(Mean(), heads, feature_dim=3)


CLIPS = torch.rand(5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
GVF = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (Heads(), {}),
        (Heads(200), {"fc.weight": (200, 3), "fc.bias": (200,)}),
        (
            Heads(200, region=True, gvf_dim=3),
            {
                "fc1.weight": (200, 3),
                "fc1.bias": (200,),
                "fc2.weight": (2, 6),
                "fc2.bias": (2,),
            },
        ),
        (
            Heads(20, region=True),
            {"fc1.weight": (20, 3), "fc1.bias": (20,), "fc2.weight": (2, 3), "fc2.bias": (2,)},
        ),
        (Heads(region=True, gvf_dim=3), {"fc.weight": (2, 6), "fc.bias": (2,)}),
    ],
)
def test_official_names_and_shapes(heads: Heads, expected: dict[str, tuple[int, ...]]) -> None:
    state = model(heads).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == expected


def test_heads_begin_small_and_unbiased() -> None:
    layer = TspModel(Mean(), Heads(4000), feature_dim=3).fc
    assert torch.equal(layer.bias, torch.zeros(4000))
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert abs(layer.weight.mean().item()) < 0.001


def test_region_head_sees_the_clip_then_the_video() -> None:
    both = model(Heads(7, region=True, gvf_dim=3))
    logits = both(CLIPS, GVF)
    clip = CLIPS.mean(dim=(2, 3, 4))
    assert logits.action is not None and logits.region is not None
    torch.testing.assert_close(logits.action, clip @ both.fc1.weight.T + both.fc1.bias)
    weight = both.fc2.weight
    expected = clip @ weight[:, :3].T + GVF @ weight[:, 3:].T + both.fc2.bias
    torch.testing.assert_close(logits.region, expected)


def test_the_region_classes_are_in_the_order_of_the_official_labels() -> None:
    """The official tables call a clip inside an action foreground, class 0."""
    assert REGION_CLASSES == ("Action", "No action")
    assert Logits.__doc__ is not None and "REGION_CLASSES" in Logits.__doc__
    head = model(Heads(region=True))
    with torch.no_grad():
        head.fc.weight.zero_()
        head.fc.bias.copy_(torch.tensor([1.0, -1.0]))
    logits = head(CLIPS).region
    assert logits is not None
    assert {REGION_CLASSES[int(i)] for i in logits.argmax(1)} == {"Action"}


def test_single_heads() -> None:
    action = model(Heads(7))(CLIPS)
    assert action.region is None and action.action.shape == (5, 7)
    region = model(Heads(region=True))(CLIPS)
    assert region.action is None and region.region.shape == (5, 2)
    nothing = model(Heads())(CLIPS)
    assert nothing == (None, None)


@pytest.mark.parametrize("gvf", [None, torch.zeros(5, 4)])
def test_missing_or_narrow_gvf_is_refused(gvf: torch.Tensor | None) -> None:
    with pytest.raises(UsageError) as caught:
        model(Heads(7, region=True, gvf_dim=3))(CLIPS, gvf)
    assert caught.value.data["value"] == (None if gvf is None else 4)


def test_heads_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError):
        Heads(0)
    with pytest.raises(UsageError):
        Heads(5, region=False, gvf_dim=3)
    with pytest.raises(UsageError):
        TspModel(Mean(), Heads(5))
