"""Recipes are the official ones, and every value can be replaced."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest

from tspcli.core.settings import parse_toml, to_toml, with_values
from tspcli.errors import UsageError
from tspcli.pretraining.training_recipe import RANGES, Execution, Recipe, load_recipe

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
    ("changed", "said"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 0}, "epochs 0"),
        ({"milestones": (6, 4)}, "do not rise"),
        ({"heads": ("action", "action")}, "heads"),
        ({"heads": ("action",)}, "needs the region head"),
        ({"foreground_only": True}, "clips of actions alone"),
        ({"batch_norm": "off"}, "batch_norm"),
        ({"frame_rate": "fast"}, "frame rate 'fast'"),
        ({"crop": (112,)}, "crop"),
        ({"milestones": (-5, -1)}, "milestones -5 is out of range"),
        ({"milestones": (True, 4)}, "milestones is"),
        ({"warmup_epochs": -3}, "warmup_epochs -3"),
        ({"warmup_factor": float("nan")}, "warmup_factor nan"),
        ({"momentum": 7.0}, "momentum 7.0"),
        ({"head_lr": 1e39}, r"head_lr 1e\+39"),
        ({"head_lr": 10**400}, "head_lr is 1000"),
        ({"action_alpha": -1.0}, "action_alpha -1.0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
    ],
)
def test_values_that_make_no_sense(changed: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe("tsp-activitynet", changed)


@pytest.mark.parametrize("settings", [Recipe, Execution])
def test_every_number_has_a_range_and_has_to_be_one(settings: type[Recipe | Execution]) -> None:
    numbers = [
        item.name
        for item in fields(settings)
        if isinstance(item.default, int | float | tuple)
        and not isinstance(item.default, bool)
        and item.name != "heads"
    ]
    assert len(numbers) > 4 and set(numbers) <= set(RANGES)
    for name in numbers:
        least, most = RANGES[name]
        for number in (math.nan, math.inf, -math.inf, least - 1, most * 10 + 1):
            value = (number, number) if isinstance(getattr(settings(), name), tuple) else number
            with pytest.raises(UsageError, match=f"{name} .* is out of range"):
                settings(**{name: value})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("head_lr = nan", "head_lr nan"),
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
    with pytest.raises(UsageError, match="is no TOML"):
        load_recipe(path)
