"""Recipes are found by name, and files change them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tspcli.errors import UsageError
from tspcli.recipes.catalog import read_recipe, recipe_names, recipe_summary

TRAINING = ["tac-activitynet", "tac-thumos14", "tsp-activitynet", "tsp-thumos14"]


def test_there_are_these_recipes() -> None:
    assert recipe_names("training") == TRAINING
    for name in TRAINING:
        assert recipe_summary("training", name)
        values = read_recipe("training", name)
        assert values["name"] == name
        assert not {"summary", "variant", "base"} & set(values)


def test_a_file_is_over_its_base_and_an_override_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "tac-activitynet"\nepochs = 3\nbackbone = "r3d_18"\nhead_lr = 0.1\n')
    values = read_recipe("training", path, {"epochs": 5})
    # The base's variant for this backbone applies, but not over what the file says.
    assert (values["epochs"], values["head_lr"], values["backbone_lr"]) == (5, 0.1, 1e-3)
    assert values["name"] == "tac-activitynet"


def test_variants_follow_from_what_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'summary = "x"\nnote = 1\na = 1\nb = 1\n'
        "[[variant]]\nif = { a = 2 }\nset = { b = 2 }\n"
        "[[variant]]\nif = { b = 2 }\nset = { c = 2 }\n"
    )

    def read(**overrides: int) -> dict[str, object]:
        return read_recipe("training", path, overrides, ignored=["note"])

    assert read() == {"name": "mine", "a": 1, "b": 1}
    assert read(a=2) == {"name": "mine", "a": 2, "b": 2, "c": 2}
    assert read(a=2, b=3) == {"name": "mine", "a": 2, "b": 3}


def test_a_base_may_have_a_base(tmp_path: Path) -> None:
    """Each file is over its base; the variants of each are under what is based on it."""
    (tmp_path / "deep").mkdir()
    lab, mine = tmp_path / "lab.toml", tmp_path / "deep" / "mine.toml"
    lab.write_text(
        'base = "tac-activitynet"\nepochs = 3\nseed = 7\nbackbone = "r3d_18"\n'
        "[[variant]]\nif = { epochs = 4 }\nset = { seed = 8, head_lr = 0.2 }\n"
    )
    mine.write_text('base = "../lab.toml"\nepochs = 4\nbatch_size = 2\n')
    values = read_recipe("training", mine)
    assert (values["epochs"], values["batch_size"], values["seed"]) == (4, 2, 8)
    assert (values["backbone_lr"], values["head_lr"]) == (1e-3, 0.2)
    assert values["name"] == "tac-activitynet"
    assert read_recipe("training", lab)["seed"] == 7
    assert read_recipe("training", mine, {"seed": 9})["seed"] == 9


def test_a_recipe_is_not_its_own_base(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('base = "other.toml"\n')
    other.write_text(f'base = "{one}"\n')
    with pytest.raises(UsageError) as caught:
        read_recipe("training", one)
    assert caught.value.data == {"path": one, "value": str(one)}


def test_what_the_user_chooses_implies_more(tmp_path: Path) -> None:
    def implied(told: Mapping[str, object]) -> dict[str, object]:
        seen.append(dict(told))
        return {"epochs": 99, "seed": 77}

    seen: list[dict[str, object]] = []
    path = tmp_path / "mine.toml"
    path.write_text('base = "tac-activitynet"\nepochs = 3\n')
    values = read_recipe("training", path, {"gamma": 0.5}, implied=implied)
    assert seen == [{"epochs": 3, "gamma": 0.5}]
    assert (values["epochs"], values["seed"], values["gamma"]) == (3, 77, 0.5)


@pytest.mark.parametrize(
    "text",
    ["variant = 3", "[[variant]]\nset = {}", "[[variant]]\nif = { a = 8 }", "base = 3", "a = = 1"],
)
def test_files_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_recipe("training", path)


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe("training", "nonsense")
    assert caught.value.data["value"] == "nonsense"
    assert all(name in str(caught.value.remedy) for name in TRAINING)
