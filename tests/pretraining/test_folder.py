"""What a run takes for its own, what it leaves alone, and what it leaves behind when refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretraining import processes
from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tests.pretraining.test_distributed import HALVES
from tspcli.errors import CheckpointError, TrainingError, TspError, UsageError
from tspcli.pretraining import pretrain
from tspcli.pretraining.precheck import fill_cache_only

ONCE = replace(FAST, epochs=1, clips_per_segment=1, milestones=())
STOP: dict[str, Any] = {"stop_requested": lambda: True}


@pytest.mark.parametrize("name", ["best.pth", "last.pth", "action_label_mapping.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_others_are_not_replaced(
    small_set: SmallSet, tmp_path: Path, name: str, resume: bool
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(TrainingError, match=f"holds {name}, but no recipe.toml.*--overwrite"):
        pretrain(**small_set.arguments(out=tmp_path, recipe=ONCE), resume=resume)
    assert (tmp_path / name).read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_run_is_overwritten_when_asked_for_alone(small_set: SmallSet, tmp_path: Path) -> None:
    arguments = small_set.arguments(out=tmp_path, recipe=ONCE)
    pretrain(**arguments)
    (tmp_path / "epoch_7.pth").write_text("of a longer run")
    (tmp_path / "unreadable.json").write_text(json.dumps({"train_0000.mp4": "not now"}))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TrainingError, match="already holds a run"):
        pretrain(**arguments)
    with pytest.raises(UsageError, match="resumed and overwritten"):
        pretrain(**arguments, resume=True, overwrite=True)
    other = {**arguments, "recipe": replace(ONCE, head_lr=0.5)}
    report = pretrain(**other, overwrite=True, **STOP)
    assert report.stopped and not report.left_out
    names = {file.name for file in tmp_path.iterdir()}
    assert not names & {"best.pth", "epoch_7.pth", "curves.png"}
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert "head_lr = 0.5" in (tmp_path / "recipe.toml").read_text()


@pytest.mark.parametrize("what", ["init", "gvf-weights", "labels"])
def test_an_input_is_never_overwritten(small_set: SmallSet, tmp_path: Path, what: str) -> None:
    arguments = small_set.arguments(out=tmp_path, recipe=ONCE)
    pretrain(**arguments, **STOP)
    shutil.copy(tmp_path / "last.pth", tmp_path / "epoch_7.pth")
    if what == "labels":
        arguments["labels"] = tmp_path / "action_label_mapping.json"
    else:
        named: dict[str, Any] = {what.replace("-", "_"): str(tmp_path / "epoch_7.pth")}
        arguments["recipe"] = replace(ONCE, **named)
    before = sorted(file.name for file in tmp_path.iterdir())
    with pytest.raises(UsageError, match=f"--{what} .* lies in --out"):
        pretrain(**arguments, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_leftovers_of_others_stay(small_set: SmallSet, tmp_path: Path) -> None:
    own, other = tmp_path / ".best.pth.1-0123abcd.tmp", tmp_path / ".mine.tmp"
    for file in (own, other):
        file.write_text("half")
    pretrain(**small_set.arguments(out=tmp_path, recipe=ONCE), **STOP)
    assert other.exists() and not own.exists()


def refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(TspError, match=match):
        pretrain(**arguments)


def test_what_is_wrong_with_the_model_shows_before_the_cache(
    small_set: SmallSet, tmp_path: Path
) -> None:
    """Nothing is left behind, and the corrected command begins."""
    out, cache = tmp_path / "run", tmp_path / "cache"
    execution = replace(QUIET, cache=str(cache))
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK\x03\x04")
    for changed, error, match in (
        ({"init": "no-such-weights"}, TspError, "no-such-weights"),
        ({"init": str(damaged)}, CheckpointError, "damaged.pth"),
        ({"init": "tiny", "backbone": "r3d_18"}, TrainingError, "not of a r3d_18"),
        ({"crop": (500, 500)}, UsageError, "crop of 500 x 500 does not fit .* 40 x 52"),
        ({"crop": (32, 53)}, UsageError, "crop of 32 x 53"),
    ):
        recipe = replace(ONCE, **changed)
        with pytest.raises(error, match=match):
            pretrain(**small_set.arguments(out=out, recipe=recipe, execution=execution))
        assert not out.exists() and not cache.exists()
    synchronised = small_set.arguments(
        out=out, execution=execution, recipe=replace(HALVES, batch_norm="sync")
    )
    assert processes.run_together(2, refused, synchronised, "needs CUDA") == [0, 0]
    assert not out.exists() and not cache.exists()
    arguments = small_set.arguments(out=out, recipe=ONCE, execution=execution)
    assert pretrain(**arguments, **STOP).stopped


@pytest.mark.parametrize("content", ["{", "[1]", "\udcff", "null"])
def test_damaged_list_of_what_was_left_out(
    small_set: SmallSet, tmp_path: Path, content: str
) -> None:
    arguments = small_set.arguments(out=tmp_path, recipe=ONCE)
    pretrain(**arguments, **STOP)
    (tmp_path / "unreadable.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError, match=r"unreadable\.json.* is damaged"):
        pretrain(**arguments, resume=True)


@pytest.mark.parametrize("content", ["{", "[1]", "null", None])
def test_damaged_cache(small_set: SmallSet, tmp_path: Path, content: str | None) -> None:
    cache = tmp_path / "cache"
    match = "is a file"
    if content is None:
        cache.write_text("no folder")
    else:
        cache.mkdir()
        (cache / "cache.json").write_text(content)
        match = "cache.json is damaged"
    execution = replace(QUIET, cache=str(cache))
    with pytest.raises(TrainingError, match=match):
        pretrain(**small_set.arguments(out=tmp_path / "run", recipe=ONCE, execution=execution))
    assert not (tmp_path / "run").exists()


def test_labels_that_do_not_fit_show_before_the_cache_is_filled(
    small_set: SmallSet, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(["sleep"]))
    execution = replace(QUIET, cache=str(tmp_path / "cache"))
    given = ([small_set.videos], small_set.train, small_set.valid, ONCE, execution)
    with pytest.raises(TrainingError, match="which the label mapping lacks"):
        fill_cache_only(*given, labels=labels)
    assert not (tmp_path / "cache").exists()


def test_the_order_of_the_first_files_lets_a_killed_start_go_on(
    small_set: SmallSet, tmp_path: Path
) -> None:
    """With the recipe alone the folder is known as the run's."""
    arguments = small_set.arguments(out=tmp_path, recipe=ONCE)
    pretrain(**arguments, **STOP)
    for file in tmp_path.iterdir():
        if file.name != "recipe.toml":
            file.unlink()
    assert pretrain(**arguments, resume=True, **STOP).stopped
    assert torch.load(tmp_path / "last.pth", weights_only=False)["run"]["state"]["step"] == 1
