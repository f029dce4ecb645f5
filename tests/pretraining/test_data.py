"""What a run starts from: initial weights, global features, and all that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.pretraining.conftest import FAST, SmallSet
from tests.pretraining.test_pretrain import Recorder
from tspcli.core.settings import parse_toml, to_toml
from tspcli.encoders import TspModel, save_checkpoint
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import CheckpointError, TrainingError, TspError, UsageError, WeightsError
from tspcli.pretraining import pretrain
from tspcli.pretraining.data import initial_input
from tspcli.pretraining.run_state import read_run_recipe
from tspcli.pretraining.training_log import RunInfo
from tspcli.pretraining.training_recipe import load_recipe
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec
from tspcli.store import StoreMetadata
from tspcli.store.gvf import read_gvf, write_gvf

STOP: dict[str, Any] = {"stop_requested": lambda: True}
LOOK = Preprocessing(ResizeSpec(36, 48), (24, 28), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of ``tiny`` that were made for small frames and short clips."""
    path = tmp_path / "mine.pth"
    sampling = Sampling(clip_length=4, stride=4)
    save_checkpoint(path, TspModel("tiny"), backbone="tiny", sampling=sampling, preprocessing=LOOK)
    return path


# --- initial weights ------------------------------------------------------------------------------


def test_initial_weights_bring_their_backbone(weights: Path, tmp_path: Path) -> None:
    assert load_recipe("tsp-activitynet", {"init": "tiny"}).backbone == "tiny"
    assert load_recipe("tac-activitynet", {"init": str(weights)}).backbone == "tiny"
    # Variants follow: TAC's learning rates are others for this one.
    r3d = load_recipe("tac-activitynet", {"init": "r3d_18-kinetics400"})
    assert (r3d.backbone, r3d.backbone_lr) == ("r3d_18", 1e-3)
    for plain in ("random", "pretrained"):
        assert load_recipe("tac-activitynet", {"init": plain}).backbone == "r2plus1d_34"
    # Whoever names one means it, in a file too.
    assert load_recipe(overrides={"init": "tiny", "backbone": "i3d"}).backbone == "i3d"
    run = tmp_path / "recipe.toml"
    run.write_text(to_toml(load_recipe("tac-thumos14").to_dict()))
    assert load_recipe(run, {"init": "tiny"}).backbone == "r2plus1d_34"
    with pytest.raises(TrainingError) as caught:
        initial_input(load_recipe(run, {"init": "tiny"}))
    assert caught.value.data == {"option": "backbone", "value": "tiny"}


def test_initial_weights_bring_their_frames(
    weights: Path, small_set: SmallSet, tmp_path: Path
) -> None:
    recipe = replace(FAST, init=str(weights), resize=(), crop=())
    listener = Recorder()
    out = tmp_path / "run"
    arguments = small_set.arguments(recipe=recipe, out=out)
    pretrain(**arguments, reporter=listener, stop_requested=lambda: True)
    assert "frames 36×48 → 24×28" in listener.infos[0].line()
    assert "clips of 0.2667 s (length 4)" in listener.infos[0].clips
    stored = torch.load(out / "last.pth", weights_only=False)["tspcli"]["preprocessing"]
    assert stored == LOOK.to_dict()
    # The run keeps to them, whatever has become of the weights.
    save_checkpoint(weights, TspModel("tiny"), backbone="tiny")
    again = Recorder()
    pretrain(**arguments, resume=True, reporter=again, **STOP)
    assert again.infos[0].clips == listener.infos[0].clips


def test_sizes_of_the_recipe_are_over_those_of_the_weights(
    weights: Path, small_set: SmallSet, tmp_path: Path
) -> None:
    listener = Recorder()
    recipe = replace(FAST, init=str(weights), resize=(40, 52), crop=())
    arguments = small_set.arguments(recipe=recipe, out=tmp_path / "run")
    pretrain(**arguments, reporter=listener, **STOP)
    assert "frames 40×52 → 24×28" in listener.infos[0].clips
    assert not any("is made for" in text for text in listener.messages)


def test_clips_other_than_those_of_the_weights_are_noted(
    small_set: SmallSet, tmp_path: Path
) -> None:
    listener = Recorder()
    arguments = small_set.arguments(recipe=replace(FAST, init="tiny"), out=tmp_path / "run")
    pretrain(**arguments, reporter=listener, **STOP)
    [note] = [text for text in listener.messages if "is made for" in text]
    assert note.startswith("tiny ") and "(length 16)" in note and "(length 4)" in note


# --- the encoder of global features ---------------------------------------------------------------


def gvf_of(path: Path, small_set: SmallSet, weights: str) -> Path:
    known = read_gvf(small_set.gvf)
    metadata = StoreMetadata.build(
        sampling=Sampling(), encoder={"backbone": "tiny", "weights": weights}
    )
    write_gvf(path, dict(known.items()), pool="max", metadata=metadata)
    return path


def test_global_features_bring_their_encoder(small_set: SmallSet, tmp_path: Path) -> None:
    """The recipe is for those of TAC on Kinetics, of 512 values; these have 128."""
    gvf, out, listener = gvf_of(tmp_path / "gvf.h5", small_set, "mine.pth"), tmp_path, Recorder()
    official = ("name", "heads", "gvf_weights")
    chosen = {key: value for key, value in FAST.to_dict().items() if key not in official}
    recipe = load_recipe("tsp-activitynet", {**chosen, "gvf_pool": "max"})
    assert recipe.gvf_weights == "r2plus1d_34-tac_on_kinetics"
    arguments = small_set.arguments(recipe=recipe, gvf=gvf, out=out / "run")
    pretrain(**arguments, reporter=listener, **STOP)
    [warning] = [text for text in listener.messages if recipe.gvf_weights in text]
    assert "mine.pth" in warning
    assert read_run_recipe(out / "run").gvf_weights == "mine.pth"
    assert pretrain(**arguments, resume=True, **STOP).stopped
    # Named by the user, another encoder is refused.
    named = replace(recipe, gvf_weights="i3d-kinetics400")
    with pytest.raises(TrainingError):
        pretrain(**{**arguments, "recipe": named, "out": out / "other"})


# --- all at once ----------------------------------------------------------------------------------


def test_all_that_is_wrong_is_listed_at_once(small_set: SmallSet, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.pth").write_text("precious")
    recipe = replace(FAST, init="nonsense", gvf_pool="max", crop=(999, 999))
    broken = tmp_path / "valid.csv"
    broken.write_text("what,is,this\n1,2,3\n")
    with pytest.raises(TrainingError) as caught:
        pretrain(
            **{
                **small_set.arguments(recipe=recipe, out=tmp_path / "run"),
                "valid": broken,
                "videos": [tmp_path],
            }
        )
    problems = caught.value.data["problems"]
    assert isinstance(problems, list)
    text = str(caught.value)
    for part in ("best.pth", "nonsense", "max global features", "valid.csv", str(tmp_path)):
        assert part in text, part
    assert any(isinstance(problem, WeightsError) for problem in problems)
    assert len(problems) == 5
    assert (tmp_path / "run" / "best.pth").read_text() == "precious"


def test_one_problem_is_raised_as_it_is(small_set: SmallSet, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK")
    kinds: list[tuple[dict[str, Any], type[TspError]]] = [
        ({"recipe": replace(FAST, init=str(broken))}, CheckpointError),
        ({"recipe": replace(FAST, crop=(99, 99))}, TspError),
        ({"videos": [tmp_path]}, UsageError),
    ]
    for changed, kind in kinds:
        with pytest.raises(kind) as caught:
            pretrain(**{**small_set.arguments(out=tmp_path / "run"), **changed})
        assert "problems" not in caught.value.data


# --- runs of older versions -----------------------------------------------------------------------


@pytest.mark.parametrize("lacking", ["region_alpha", "gvf_weights", "seed"])
def test_a_run_begun_before_a_field_existed_resumes(
    small_set: SmallSet, tmp_path: Path, lacking: str
) -> None:
    """Its recipe has the field's default, wherever it is stored."""
    out = tmp_path / "run"
    recipe = replace(FAST, seed=42)
    arguments = small_set.arguments(recipe=recipe, out=out)
    pretrain(**arguments, **STOP)
    file = out / "recipe.toml"
    content = parse_toml(file.read_text(), "recipe")
    del content[lacking]
    file.write_text(to_toml(content))
    last = torch.load(out / "last.pth", weights_only=False)
    del last["run"]["recipe"][lacking]
    torch.save(last, out / "last.pth")
    assert pretrain(**arguments, resume=True, **STOP).stopped
    other: Any = 7 if lacking == "seed" else "tiny" if lacking == "gvf_weights" else 0.5
    changed = replace(recipe, **{lacking: other})
    with pytest.raises(TrainingError) as caught:
        pretrain(**{**arguments, "recipe": changed}, resume=True)
    differences = caught.value.data["differences"]
    assert isinstance(differences, dict) and set(differences) == {lacking}


# --- what a run says about its length -------------------------------------------------------------


def info(**changed: Any) -> RunInfo:
    recipe = {**FAST.to_dict(), "epochs": 8}
    values: dict[str, Any] = {
        "out": "run", "recipe": recipe, "n_train_clips": 100, "n_valid_clips": 30, "n_steps": 3,
        "device": "cpu", "precision": "fp32", "world_size": 1, "first_epoch": 0, "first_step": 0,
        "chance": {},
    }  # fmt: skip
    return RunInfo(**{**values, **changed})


@pytest.mark.parametrize(
    ("changed", "hinted"),
    [({}, True), ({"n_steps": 20}, False), ({"first_epoch": 8}, False)],
)
def test_an_epoch_of_few_steps_is_worth_a_hint(changed: dict[str, int], hinted: bool) -> None:
    assert ("--batch-size" in info(**changed).line()) == hinted


def test_the_first_step_says_how_long_training_takes(
    small_set: SmallSet, tmp_path: Path, with_gvf: Callable[..., dict[str, Any]]
) -> None:
    listener = Recorder()
    arguments = small_set.arguments(out=tmp_path / "run")
    execution = replace(arguments["execution"], log_every_steps=1000)
    steps = iter([False, False, True])
    pretrain(
        **{**arguments, "execution": execution},
        reporter=listener,
        stop_requested=lambda: next(steps),
    )
    [first] = [text for text in listener.messages if text.startswith("First step")]
    assert " left" in first
    assert [status.step for status in listener.steps] == [1]
    assert listener.steps[0].left_s > 0 and np.isfinite(listener.steps[0].left_s)
