"""Words and files on the command line of `tsp pretrain` that make no sense."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tspcli.cli.main import is_reported_elsewhere
from tspcli.cli.pretrain import command, split_settings
from tspcli.core.settings import to_toml, with_values
from tspcli.errors import TspError, UsageError
from tspcli.pretraining.training_recipe import Execution, Recipe, load_recipe

NEEDED = ["--videos", ".", "--train", "t.csv", "--valid", "v.csv", "--out", "run"]


def refusal(*words: str) -> Exception:
    result = CliRunner().invoke(command, [*NEEDED, *words], standalone_mode=False)
    assert isinstance(result.exception, TspError | click.UsageError), result.exception
    assert result.exception.exit_code == 2
    return result.exception


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"execution = 3\n", "execution"),
        ("# Gr\xf6\xdfe\n".encode("latin-1"), "mine.toml"),
        (b"epochs = = 3\n", "mine.toml"),
        (b"head_lr = inf\n", "head_lr"),
        (b"[execution]\ncheckpoint_every_s = nan\n", "checkpoint_every_s"),
    ],
)
def test_config_files(tmp_path: Path, content: bytes, said: str) -> None:
    config = tmp_path / "mine.toml"
    config.write_bytes(content)
    assert said in str(refusal("--config", str(config)))


@pytest.mark.parametrize(
    "words",
    [
        ("--head-lr", "1e39"),
        ("--action-alpha", "nan"),
        ("--milestones", "-5,-1"),
        ("--momentum", "7"),
        ("--checkpoint-every-s", "nan"),
        ("--heads", "action,action"),
        ("--epochs", "2.5"),
    ],
)
def test_numbers(words: tuple[str, str]) -> None:
    error = refusal(*words)
    assert isinstance(error, click.BadParameter) and error.param is not None
    assert error.param.opts == [words[0]] and repr(words[1]) in error.message


@pytest.mark.parametrize("settings", [Recipe, Execution])
def test_every_field_has_an_option_and_a_key(
    settings: type[Recipe | Execution], tmp_path: Path
) -> None:
    options = {parameter.name: parameter for parameter in command.params}
    changed = {
        "name": "mine",
        "backbone": "r3d_18",
        "init": "random",
        "heads": ["region"],
        "gvf_pool": "mean",
        "gvf_weights": "tiny",
        "frame_rate": "30",
        "resize": [9, 8],
        "crop": [7, 6],
        "milestones": [3, 5],
        "batch_norm": "frozen",
        "channels_last": False,
        "device": "cpu",
        "precision": "fp32",
        "decoder": "pyav",
        "on_unreadable": "skip",
        "cache": "folder",
        "cache_codec": "webp",
    }
    for item in fields(settings):
        default = getattr(settings(), item.name)
        value = changed.get(item.name, default)
        if isinstance(value, bool) and item.name not in changed:
            value = not value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = value / 2 if isinstance(default, float) and default else value + 1
        path = tmp_path / f"{item.name}.toml"
        others = {"heads": ["action"]} if item.name == "foreground_only" else {}
        path.write_text(to_toml({item.name: value, **others}))
        what, how = split_settings(path, {})
        made = with_values(settings(), what if settings is Recipe else how, "file")
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(made, item.name) == expected != default, item.name
        if item.name == "name":
            continue
        option = options[item.name]
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words = [option.opts[0], text]
        if isinstance(value, bool):
            words = [option.opts[0] if value else option.secondary_opts[0]]
        context = command.make_context("pretrain", [*NEEDED, *words])
        assert context.params[item.name] == expected, item.name


def test_recipe_of_a_run_as_recipe_and_as_config(tmp_path: Path) -> None:
    run = tmp_path / "recipe.toml"
    recipe = load_recipe("tac-thumos14")
    execution = Execution(workers=3)
    run.write_text(
        to_toml({**recipe.to_dict(), "tool_version": "1", "execution": execution.to_dict()})
    )
    assert load_recipe(run) == recipe
    what, how = split_settings(run, {"workers": 2})
    assert load_recipe(overrides=what) == recipe
    assert with_values(Execution(), how, "t") == Execution(workers=2)


def test_a_misspelt_setting_is_reported_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epohcs = 3")
    with pytest.raises(UsageError) as caught:
        split_settings(path, {})
    assert caught.value.data == {"option": "epohcs", "path": path}
    assert str(path) in caught.value.message and "'epochs'" in str(caught.value.remedy)


def test_options_that_are_missing_are_named() -> None:
    result = CliRunner().invoke(command, ["--videos", "."], standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert "--train, --valid, --out" in str(result.exception)


def test_who_tells_an_error_is_what_the_processes_agreed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that the second process alone has found is told by the second."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_RANK", "1")
    error = UsageError("The device lacks that.")
    assert is_reported_elsewhere(error)
    error.reported_elsewhere = False
    assert not is_reported_elsewhere(error)


def test_every_option_of_a_recipe_says_its_own_and_the_official_value() -> None:
    options = {option.name: str(getattr(option, "help", "")) for option in command.params}
    official = load_recipe("tsp-activitynet")
    said = [options[field.name].split(" (tsp-activitynet")[0] for field in fields(Recipe)[1:]]
    assert all(len(text) > len("[what] ") for text in said)
    assert len(set(said)) == len(said)
    assert f"(tsp-activitynet: {official.warmup_factor})" in options["warmup_factor"]
    assert "(tsp-activitynet: 4,6)" in options["milestones"]
