"""Whose weights these are: found from names and shapes, without building every backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tspcli.encoders import backbones
from tspcli.encoders.backbones import (
    BACKBONES,
    BackboneEntry,
    BackboneSpec,
    backbone_spec,
    build_backbone,
)
from tspcli.encoders.state_dicts import (
    SkipInit,
    backbone_shapes,
    digest_of_keys,
    identify,
    shapes_of,
)
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.errors import CheckpointError, DependencyError

HERE = Path("x.pth")


@pytest.fixture(scope="module")
def tiny() -> TspModel:
    torch.manual_seed(3)
    return TspModel("tiny", Heads(5, region=True, gvf_dim=128))


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Adds a spec to the table for one test, before all others."""

    def add(spec: BackboneSpec) -> None:
        monkeypatch.setattr(backbones, "TOY", spec, raising=False)
        monkeypatch.setitem(
            BACKBONES,
            spec.name,
            BackboneEntry(spec.name, "tspcli.encoders.backbones:TOY", "A toy."),
        )

    yield add
    backbone_shapes.cache_clear()


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_states_its_keys(name: str) -> None:
    """A difference means that checkpoints saved before may not load: see why before changing it."""
    assert backbone_spec(name).keys == digest_of_keys(backbone_shapes(name))


@pytest.mark.parametrize("name", ["tiny", "r3d_18", "swin3d_t"])
def test_networks_without_memory_have_the_shapes_of_real_ones(name: str) -> None:
    with SkipInit():
        module = build_backbone(name)
    assert backbone_shapes(name) == shapes_of(module.state_dict())


def test_recognising_a_checkpoint_builds_nothing(
    tiny: TspModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a backbone was built")

    monkeypatch.setattr(models, "get_model", forbidden)
    monkeypatch.setattr("tspcli.encoders.state_dicts.backbone_shapes", forbidden)
    found = identify(tiny.state_dict(), HERE)
    assert (found.backbone, found.layout, found.heads) == ("tiny", "official", tiny.heads)


def test_old_checkpoints_without_batch_counters(tiny: TspModel) -> None:
    state = {k: v for k, v in tiny.state_dict().items() if "num_batches" not in k}
    assert identify(state, HERE).backbone == "tiny"


def needs_a_package() -> torch.nn.Module:
    raise ImportError("no module named 'absent'")


def test_a_backbone_whose_package_is_missing_breaks_nobody_elses(
    tiny: TspModel, added: Any
) -> None:
    added(BackboneSpec("absent", needs_a_package, 9))
    assert identify(tiny.state_dict(), HERE).backbone == "tiny"
    with pytest.raises(CheckpointError) as caught:
        identify({"x": torch.zeros(1)}, HERE)
    assert caught.value.data["backbone"] != "absent"
    with pytest.raises(DependencyError):
        identify(tiny.state_dict(), HERE, backbone="absent")


def test_a_backbone_that_states_no_keys_is_built(added: Any) -> None:
    added(BackboneSpec("toy", lambda: torch.nn.Linear(3, 9), 9, plain_head="head"))
    state = {**torch.nn.Linear(3, 9).state_dict(), "head.weight": torch.zeros(4, 9)}
    state["head.bias"] = torch.zeros(4)
    found = identify(state, HERE)
    assert (found.backbone, found.layout, found.heads) == ("toy", "plain", Heads(4))
    assert set(found.state) == {"features.weight", "features.bias", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("stated", [True, False])
def test_prefixes_are_data(added: Any, stated: bool) -> None:
    spec = BackboneSpec("toy", lambda: torch.nn.Linear(3, 9), 9, key_prefixes=("vivit.",))
    linear = torch.nn.Linear(3, 9).state_dict()
    added(replace(spec, keys=digest_of_keys(shapes_of(linear)) if stated else None))
    state = {f"module.vivit.{k}": v for k, v in linear.items()}
    found = identify(state, HERE)
    assert found.backbone == "toy" and set(found.state) == {"features.weight", "features.bias"}


def test_two_classes_are_a_region_head_only_if_that_is_known() -> None:
    state = TspModel("tiny", Heads(region=True)).state_dict()
    assert identify(state, HERE).heads == Heads(2)
    assert identify(state, HERE, region_alone=True).heads == Heads(region=True)


def test_differences_are_named(tiny: TspModel) -> None:
    state = dict(tiny.state_dict())
    state["features.extra"] = torch.zeros(1)
    del state["features.stem.0.weight"]
    state["features.stem.4.bias"] = torch.zeros(17)
    with pytest.raises(CheckpointError) as caught:
        identify(state, HERE)
    assert caught.value.data["backbone"] == "tiny"
    for words in ("stem.0.weight", "extra", "stem.4.bias is (17,), expected (16,)"):
        assert words in str(caught.value.data["differences"])


def test_wrong_backbone_and_odd_heads(tiny: TspModel) -> None:
    with pytest.raises(CheckpointError) as caught:
        identify(tiny.state_dict(), HERE, backbone="r3d_18")
    assert caught.value.data["backbone"] == "r3d_18"
    odd: list[dict[str, torch.Tensor]] = [
        {k: v for k, v in tiny.state_dict().items() if not k.startswith("fc1.")},
        {**tiny.state_dict(), "fc2.weight": torch.zeros(2, 100)},
        {**tiny.state_dict(), "fc2.weight": torch.zeros(3, 256), "fc2.bias": torch.zeros(3)},
        {k: v for k, v in tiny.state_dict().items() if k != "fc1.bias"},
    ]
    for state in odd:
        with pytest.raises(CheckpointError) as caught:
            identify(state, HERE)
        assert caught.value.data["backbone"] == "tiny"
        assert names_a_head(str(caught.value.data["differences"]))


def names_a_head(text: str) -> bool:
    return "head" in text and ("fc1" in text or "fc2" in text)


def test_stated_heads_must_be_those_of_the_tensors(tiny: TspModel) -> None:
    """Else memory would be taken for what is not there."""
    with pytest.raises(CheckpointError) as caught:
        identify(tiny.state_dict(), HERE, heads=Heads(10**9, region=True, gvf_dim=128))
    assert caught.value.data["head"] == "fc1"
