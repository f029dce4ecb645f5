"""Recipes of published features: each fits its encoder, and its digest and deviations are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.refusals import refused
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.weights import find_weights
from tspcli.errors import UsageError
from tspcli.recipes.catalog import recipe_names
from tspcli.recipes.feature_recipe import feature_recipe, feature_recipes

NAMES = recipe_names("features")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_fits_its_weights_and_backbone(name: str) -> None:
    recipe = feature_recipe(name)
    assert recipe.name == name and recipe.summary and recipe.source
    spec, entry = backbone_spec(recipe.backbone), find_weights(recipe.weights)
    assert entry.backbone == recipe.backbone
    spec.check_clip_length(recipe.sampling.clip_length)
    suited = entry.preprocessing or spec.preprocessing.to_dict()
    assert Preprocessing.from_dict(recipe.preprocessing).to_dict() == suited


def test_digests_differ_and_say_what_a_row_depends_on() -> None:
    recipes = feature_recipes()
    assert {recipe.name for recipe in recipes} == set(NAMES) >= {"tsp-activitynet", "tsp-thumos14"}
    assert len({recipe.digest for recipe in recipes}) == len(recipes)


def test_deviations_are_named() -> None:
    recipe = feature_recipe("tsp-thumos14")
    settings = {
        "backbone": recipe.backbone,
        "sampling": recipe.sampling.to_dict(),
        "preprocessing": recipe.preprocessing,
        "precision": "fp16",
    }
    assert recipe.deviations(settings, recipe.weights) == []
    other = {**settings, "sampling": {**recipe.sampling.to_dict(), "stride": 8}}
    assert recipe.deviations(other, "random") == [
        "sampling.stride: 1, not 8",
        f"weights: {recipe.weights}, not random",
    ]


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("standing", 'standing = "exact"', 'standing = "certain"'),
        ("backbone", 'backbone = "r2plus1d_34"', ""),
        ("extra", 'backbone = "r2plus1d_34"', 'backbone = "r2plus1d_34"\nextra = 1'),
        ("sampling", "stride = 16\n", ""),
    ],
)
def test_a_recipe_that_does_not_say_all_is_refused(
    field: str, old: str, new: str, tmp_path: Path
) -> None:
    import tspcli.recipes

    folder = Path(tspcli.recipes.__file__).parent / "features"
    text = (folder / "tsp-activitynet.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert feature_recipe(path).digest == feature_recipe("tsp-activitynet").digest
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with refused(UsageError, option=field):
        feature_recipe(path)
