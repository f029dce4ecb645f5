"""Recipes are the official ones, and every value can be replaced."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from tspcli.core.settings import parse_toml, settings_of, to_toml, with_values
from tspcli.errors import UsageError
from tspcli.pretraining.training_recipe import Execution, Recipe, load_recipe

COMMON = {
    "backbone": "r2plus1d_34",
    "clip_length": 16,
    "frame_rate": "15",
    "clips_per_segment": 5,
    "epochs": 8,
    "batch_size": 32,
    "stem_lr": 0.0,
    "scale_lr_by_world_size": True,
    "momentum": 0.9,
    "weight_decay": 0.005,
    "warmup_epochs": 2,
    "warmup_factor": 1e-5,
    "milestones": (4, 6),
    "gamma": 0.01,
    "batch_norm": "train",
    "action_alpha": 1.0,
}
TSP = {
    "heads": ("action", "region"),
    "gvf_pool": "max",
    "gvf_weights": "r2plus1d_34-tac_on_kinetics",
    "foreground_only": False,
    "region_alpha": 1.0,
}
TAC = {"heads": ("action",), "gvf_pool": "none", "foreground_only": True}
OFFICIAL = {
    "tsp-activitynet": {**TSP, "backbone_lr": 1e-4, "head_lr": 2e-3},
    "tac-activitynet": {**TAC, "backbone_lr": 1e-4, "head_lr": 2e-3},
    "tsp-thumos14": {**TSP, "backbone_lr": 1e-4, "head_lr": 4e-3},
    "tac-thumos14": {**TAC, "backbone_lr": 1e-5, "head_lr": 2e-3},
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_hyper_parameters(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for key, value in {**COMMON, **OFFICIAL[name]}.items():
        assert getattr(recipe, key) == value, key


@pytest.mark.parametrize(
    ("name", "changed", "rates"),
    [
        ("tsp-activitynet", {"gvf_pool": "mean"}, (1e-4, 4e-3)),
        ("tsp-activitynet", {"gvf_pool": "none"}, (1e-4, 4e-3)),
        ("tsp-activitynet", {"backbone": "r2plus1d_18"}, (1e-4, 2e-3)),
        ("tsp-activitynet", {"backbone": "r3d_18"}, (1e-4, 2e-3)),
        ("tac-activitynet", {"backbone": "r2plus1d_18"}, (1e-4, 4e-3)),
        ("tac-activitynet", {"backbone": "r3d_18"}, (1e-3, 1e-2)),
        ("tac-activitynet", {"backbone": "r3d_18", "head_lr": 0.5}, (1e-3, 0.5)),
    ],
)
def test_released_variants(name: str, changed: dict, rates: tuple[float, float]) -> None:
    recipe = load_recipe(name, changed)
    assert (recipe.backbone_lr, recipe.head_lr) == rates


def test_file_over_recipe_and_option_over_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "tac-activitynet"\nepochs = 3\nbackbone = "r3d_18"\nhead_lr = 0.1\n')
    recipe = load_recipe(path, {"epochs": 5})
    assert (recipe.epochs, recipe.head_lr, recipe.backbone_lr) == (5, 0.1, 1e-3)
    assert recipe.heads == ("action",)


@pytest.mark.parametrize(
    "settings",
    [
        load_recipe("tsp-thumos14"),
        *(Execution(cache=name) for name in ('a "b" ü', "\N{GRINNING FACE}/cache", "del\x7f\\")),
    ],
)
def test_settings_survive_toml(settings: Recipe | Execution) -> None:
    text = to_toml(settings.to_dict())
    assert with_values(type(settings)(), parse_toml(text, "t"), "t") == settings


def test_a_name_that_no_text_can_hold_is_written_all_the_same() -> None:
    text = to_toml({"cache": "v_\udcff"})
    assert parse_toml(text, "t") == {"cache": "v_\\udcff"}


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ({"epoch": 3}, "epoch"),
        ({"epochs": "3"}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"milestones": (6, 4)}, "milestones"),
        ({"heads": ("action", "action")}, "heads"),
        ({"heads": ()}, "heads"),
        ({"heads": ("action",)}, "gvf_pool"),
        ({"foreground_only": True}, "foreground_only"),
        ({"batch_norm": "off"}, "batch_norm"),
        ({"crop": (112,)}, "crop"),
        ({"milestones": (True, 4)}, "milestones"),
        ({"head_lr": 10**400}, "head_lr"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_values_that_make_no_sense(changed: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("tsp-activitynet", changed)
    assert caught.value.data["option"] == option


def test_a_misspelt_setting_is_recognised() -> None:
    with pytest.raises(UsageError, match="epochs"):
        load_recipe("tsp-activitynet", {"epoch": 3})


def test_a_rate_that_is_none() -> None:
    with pytest.raises(UsageError, match="fast"):
        load_recipe("tsp-activitynet", {"frame_rate": "fast"})


@pytest.mark.parametrize("settings", [Recipe, Execution])
def test_every_number_has_a_range_and_has_to_be_one(settings: type[Recipe | Execution]) -> None:
    known = settings_of(settings)
    numbers = [setting for setting in known.values() if setting.kind in (int, float)]
    assert len(numbers) > 4
    for setting in numbers:
        assert setting.low > -math.inf and (setting.high < math.inf or setting.name == "seed")
        for number in (
            math.nan,
            math.inf,
            -math.inf,
            setting.low - 1,
            max(2**65, setting.high * 2),
        ):
            value: Any = (number, number) if setting.many else number
            with pytest.raises(UsageError) as caught:
                settings(**{setting.name: value})
            assert caught.value.data["option"] == setting.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("head_lr = nan", "head_lr"),
    ],
)
def test_recipe_files_that_make_no_sense(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_recipe(path)


def test_recipe_of_a_run_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    recipe = load_recipe("tac-thumos14", {"backbone": "r3d_18", "seed": 2**64 - 1})
    told = {**recipe.to_dict(), "tool_version": "1", "execution": Execution().to_dict()}
    path.write_text(to_toml(told))
    assert load_recipe(path) == recipe


def test_unknown_recipe_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tac-thumos14"):
        load_recipe("nonsense")
    path = tmp_path / "broken.toml"
    path.write_text("epochs = = 3")
    with pytest.raises(UsageError, match=r"broken\.toml"):
        load_recipe(path)


@pytest.mark.parametrize("alphas", [{"action": 1.0}, {"action": 1.0, "region": 1.0, "other": 1.0}])
def test_a_loss_without_a_weight_is_found_at_import(
    monkeypatch: pytest.MonkeyPatch, alphas: dict[str, float]
) -> None:
    """And a weight without a loss, which would have no effect."""
    from tspcli.pretraining import tsp_losses

    monkeypatch.setattr(Recipe, "alphas", property(lambda recipe: alphas))
    spec = tsp_losses.__spec__
    assert spec is not None and spec.loader is not None
    with pytest.raises(TypeError, match=r"region|other"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
