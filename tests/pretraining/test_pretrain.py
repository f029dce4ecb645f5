"""What a run leaves behind, what it refuses before it starts, and its command."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from tests.builders.refusals import refused
from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tspcli.cli.pretrain import command
from tspcli.core.progress import Reporter
from tspcli.core.settings import parse_toml
from tspcli.encoders import load_checkpoint, load_encoder
from tspcli.errors import TrainingError, UsageError
from tspcli.extraction import extract
from tspcli.pretraining import pretrain
from tspcli.pretraining.data import RunInputs, load_data
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.epoch_plan import ValidationPlan
from tspcli.pretraining.loader import BatchFeed
from tspcli.pretraining.run_state import read_run_recipe
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_log import (
    EpochResult,
    PretrainReport,
    RunInfo,
    StepStatus,
    named_figures,
    read_results,
)
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, open_store
from tspcli.store.gvf import write_gvf


class Recorder(Reporter):
    def __init__(self) -> None:
        self.infos: list[RunInfo] = []
        self.steps: list[StepStatus] = []
        self.epochs: list[EpochResult] = []
        self.messages: list[str] = []

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        if isinstance(figures, StepStatus):
            self.steps.append(figures)

    def result(self, result: Any) -> None:
        if isinstance(result, RunInfo):
            self.infos.append(result)
        else:
            assert isinstance(result, EpochResult)
            self.epochs.append(result)

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def finished(
    small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PretrainReport, Recorder]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("finished") / "run"
    recorder = Recorder()
    report = pretrain(
        **small_set.arguments(
            out=out,
            recipe=replace(FAST, gvf_pool="max", gvf_weights="tiny-weights", epochs=3),
            execution=replace(QUIET, tensorboard=True, keep_epochs=True),
            gvf=small_set.gvf,
        ),
        reporter=recorder,
    )
    return out, report, recorder


def test_results_and_best_epoch(finished: tuple[Path, PretrainReport, Recorder]) -> None:
    out, report, recorder = finished
    results = read_results(out)
    assert results == report.epochs == recorder.epochs
    for result in results:
        heads = [result.valid["action_accuracy"], result.valid["region_accuracy"]]
        assert result.score == pytest.approx(np.mean(heads))
        losses = result.valid["action_loss"] + result.valid["region_loss"]
        assert result.valid["loss"] == pytest.approx(losses)
    scores = [result.score for result in results]
    assert report.best_epoch == int(np.argmax(scores))
    assert [r.best for r in results] == [s > max([-1, *scores[:i]]) for i, s in enumerate(scores)]
    best = torch.load(out / "best.pth", weights_only=False)
    assert best["epoch"] == report.best_epoch
    kept = torch.load(out / f"epoch_{report.best_epoch}.pth", weights_only=False)
    assert all(torch.equal(kept["model"][key], value) for key, value in best["model"].items())
    assert len(list(out.glob("epoch_*.pth"))) == 3


def test_events_tell_what_a_display_needs(
    finished: tuple[Path, PretrainReport, Recorder],
) -> None:
    _, _, recorder = finished
    info = recorder.infos[0]
    assert info.n_steps * info.recipe["epochs"] == len(recorder.steps)
    assert set(info.chance) == {"action", "region"}
    last = recorder.steps[-1]
    assert set(last.losses) == {"total", "action", "region"}
    assert set(last.accuracies) == {"action", "region"}
    assert set(last.learning_rates) == {"stem", "backbone", "fc"}
    assert last.clips_per_s > 0 and 0 <= last.wait_percent <= 100
    assert last.left_s == 0 and recorder.steps[-2].left_s > 0


def test_run_folder_tells_its_recipe(finished: tuple[Path, PretrainReport, Recorder]) -> None:
    out, _, _ = finished
    expected = replace(FAST, gvf_pool="max", gvf_weights="tiny-weights", epochs=3)
    assert read_run_recipe(out) == expected
    content = parse_toml((out / "recipe.toml").read_text(), "recipe.toml")
    assert content["execution"]["device"] == "cpu"
    assert content["execution"]["precision"] == "fp32"
    assert json.loads((out / "action_label_mapping.json").read_text()) == [
        "bounce",
        "circle",
        "sway",
    ]


def test_curves_and_tensorboard_events(finished: tuple[Path, PretrainReport, Recorder]) -> None:
    out, _, recorder = finished
    picture = (out / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/action_loss", "learning_rate/fc", "valid/mean_accuracy"} <= tags
    assert len(events.Scalars("train/total_loss")) == len(recorder.steps)
    scores = [event.value for event in events.Scalars("valid/mean_accuracy")]
    assert scores == pytest.approx([result.score for result in recorder.epochs])


def test_checkpoint_has_the_official_layout(
    finished: tuple[Path, PretrainReport, Recorder],
) -> None:
    """Loaded as the official extraction script does it: what has no ``fc``, plus a fresh head."""
    out, _, _ = finished
    content = torch.load(out / "best.pth", map_location="cpu", weights_only=False)
    assert {"model", "optimizer", "lr_scheduler", "epoch", "args"} <= set(content)
    assert isinstance(content["args"], argparse.Namespace)
    assert content["args"].label_columns == ["action-label", "temporal-region-label"]
    state = content["model"]
    assert state["fc1.weight"].shape == (3, state["fc1.weight"].shape[1])
    assert state["fc2.weight"].shape == (2, 2 * state["fc1.weight"].shape[1])
    from tspcli.encoders import build_backbone

    model = nn.Module()
    model.features = build_backbone("tiny")
    model.fc = nn.Linear(state["fc1.weight"].shape[1], 1)
    pretrained = {key: value for key, value in state.items() if "fc" not in key}
    for name in ("fc.weight", "fc.bias"):
        pretrained[name] = model.state_dict()[name]
    model.load_state_dict(pretrained)
    groups = content["optimizer"]["param_groups"]
    assert [group["name"] for group in groups] == ["stem", "backbone", "fc"]
    assert content["lr_scheduler"]["base_lrs"] == [0.001, 0.002, 0.01]


def test_run_goes_straight_into_extraction(
    finished: tuple[Path, PretrainReport, Recorder], small_set: SmallSet, tmp_path: Path
) -> None:
    out, _, _ = finished
    encoder = load_encoder(out, device="cpu")
    assert encoder.class_names == ("bounce", "circle", "sway")
    assert encoder.sampling == Sampling(clip_length=4, stride=4)
    assert encoder.preprocessing.crop == (32, 32)
    report = extract(
        small_set.videos / "valid", tmp_path / "f.h5", weights=str(out), device="cpu", workers=1
    )
    assert not report.failed
    with open_store(tmp_path / "f.h5") as store:
        rows = store["valid_0000"].rows
        assert rows.shape[1] == encoder.feature_dim
        assert np.isfinite(rows).all()


def test_checkpoint_holds_what_was_validated(
    finished: tuple[Path, PretrainReport, Recorder], small_set: SmallSet
) -> None:
    """The best checkpoint, loaded and validated afresh, has the accuracies of its epoch."""
    out, report, _ = finished
    recipe = read_run_recipe(out)
    inputs = RunInputs(
        (small_set.videos,), small_set.train, small_set.valid, small_set.labels, small_set.gvf
    )
    data = load_data(inputs, recipe)
    devices = Devices(Placement(), "cpu")
    model = load_checkpoint(out).build_model()
    trainer = Trainer(model, recipe, QUIET, devices, data.preprocessing)
    feed = BatchFeed(data.loader("valid", QUIET))
    figures = trainer.validate(feed(ValidationPlan(data.plans["valid"], 7))).figures
    named = named_figures(figures.means(), recipe.alphas)
    assert named == pytest.approx(report.epochs[report.best_epoch].valid, rel=1e-5)


@pytest.mark.parametrize(
    ("heads", "foreground_only", "names"),
    [
        (("action",), True, {"loss", "action_loss", "action_accuracy"}),
        (("region",), False, {"loss", "region_loss", "region_accuracy"}),
    ],
    ids=["tac", "region-alone"],
)
def test_one_head_alone(
    small_set: SmallSet,
    tmp_path: Path,
    heads: tuple[str, ...],
    foreground_only: bool,
    names: set[str],
) -> None:
    recipe = replace(FAST, heads=heads, foreground_only=foreground_only, epochs=1)
    recorder = Recorder()
    report = pretrain(**small_set.arguments(out=tmp_path / "run", recipe=recipe), reporter=recorder)
    assert set(report.epochs[0].valid) == names
    assert load_checkpoint(tmp_path / "run").heads.region == (heads == ("region",))
    both = pretrain(
        **small_set.arguments(out=tmp_path / "both", recipe=replace(FAST, epochs=1)),
        stop_requested=lambda: True,
        reporter=(other := Recorder()),
    )
    assert both.stopped
    fewer = recorder.infos[0].n_train_clips < other.infos[0].n_train_clips
    assert fewer == foreground_only


# --- what is refused before anything is computed --------------------------------------------------


def gvf_file(path: Path, small_set: SmallSet, width: int, **said: Any) -> Path:
    from tspcli.store.gvf import read_gvf

    rng = np.random.default_rng(0)
    vectors = {key: rng.normal(size=width).astype(np.float32) for key in read_gvf(small_set.gvf)}
    encoder = {"backbone": "tiny", "weights": "tiny-weights", **said}
    metadata = StoreMetadata.build(sampling=Sampling(), encoder=encoder)
    write_gvf(path, vectors, pool="max", metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("width", "said", "changed", "message"),
    [
        (7, {}, {}, r"7 values; those of tiny have \d+"),
        (512, {"weights": "other"}, {"gvf_weights": "r2plus1d_34-tac_on_kinetics"}, "other"),
        (
            512,
            {"weights": "r2plus1d_34-tac_on_kinetics"},
            {"gvf_weights": "r2plus1d_34-tac_on_kinetics"},
            "made by a tiny",
        ),
        (None, {}, {"gvf_pool": "mean"}, "pooled by max, the recipe says mean"),
        (None, {}, {"gvf_pool": "none"}, "does without global features"),
    ],
)
def test_global_features_that_do_not_fit(
    with_gvf: Callable[..., dict[str, Any]],
    small_set: SmallSet,
    tmp_path: Path,
    width: int | None,
    said: dict[str, Any],
    changed: dict[str, Any],
    message: str,
) -> None:
    arguments = with_gvf(out=tmp_path / "run")
    arguments["recipe"] = replace(arguments["recipe"], **changed)
    if width is not None:
        arguments["gvf"] = gvf_file(tmp_path / "gvf.h5", small_set, width, **said)
    with pytest.raises(TrainingError, match=message):
        pretrain(**arguments)
    assert not (tmp_path / "run").exists()


def test_global_features_that_are_missing_or_unknown(
    with_gvf: Callable[..., dict[str, Any]], small_set: SmallSet, tmp_path: Path
) -> None:
    arguments = with_gvf(out=tmp_path / "run")
    with refused(TrainingError, option="gvf"):
        pretrain(**{**arguments, "gvf": None})
    partial = tmp_path / "partial.h5"
    partial.write_bytes(small_set.gvf.read_bytes())
    with h5py.File(partial, "r+") as file:
        del file["valid_0001"]
    with refused(TrainingError, option="gvf", missing=["valid_0001.mp4"]):
        pretrain(**{**arguments, "gvf": partial})
    official = tmp_path / "official.h5"
    official.write_bytes(small_set.gvf.read_bytes())
    with h5py.File(official, "r+") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    recorder = Recorder()
    pretrain(**{**arguments, "gvf": official}, reporter=recorder, stop_requested=lambda: True)
    assert any("does not say which encoder made it" in text for text in recorder.messages)


def test_other_inputs_that_do_not_fit(small_set: SmallSet, tmp_path: Path) -> None:
    out = tmp_path / "run"
    missing = ["valid_0000.mp4", "valid_0001.mp4"]
    with refused(TrainingError, option="videos", missing=missing):
        pretrain(**small_set.arguments(out=out, videos=[small_set.videos / "train"]))
    with refused(UsageError, option="backbone", value="tinny"):
        pretrain(**small_set.arguments(out=out, recipe=replace(FAST, backbone="tinny")))
    with refused(UsageError, option="init", value="tiny"):
        pretrain(**small_set.arguments(out=out, recipe=replace(FAST, init="pretrained")))
    assert not out.exists()


def test_short_segments_are_counted(small_set: SmallSet, tmp_path: Path) -> None:
    recipe = replace(FAST, clip_length=16)  # some segments are shorter than 16/15 s
    recorder = Recorder()
    arguments = small_set.arguments(out=tmp_path / "run", recipe=recipe)
    pretrain(**arguments, reporter=recorder, stop_requested=lambda: True)
    assert any("left out" in t and "shorter than one clip" in t for t in recorder.messages)


def test_training_goes_on_from_another_runs_weights(
    finished: tuple[Path, PretrainReport, Recorder], small_set: SmallSet, tmp_path: Path
) -> None:
    out, _, _ = finished
    recipe = replace(
        FAST,
        init=str(out),
        heads=("action",),
        stem_lr=0.0,
        backbone_lr=0.0,
        head_lr=0.0,
        batch_norm="frozen",
        epochs=1,
    )
    pretrain(**small_set.arguments(out=tmp_path / "run", recipe=recipe))
    start, end = load_checkpoint(out).state, load_checkpoint(tmp_path / "run").state
    body = [key for key in end if key.startswith("features.")]
    assert body and all(torch.equal(start[key], end[key]) for key in body)


# --- the command ----------------------------------------------------------------------------------


def command_line(small_set: SmallSet, out: Path, *others: str) -> list[str]:
    return [
        *("--videos", str(small_set.videos), "--train", str(small_set.train)),
        *("--valid", str(small_set.valid), "--out", str(out), "--backbone", "tiny"),
        *("--init", "random", "--gvf-pool", "none", "--clip-length", "4", "--resize", "40,52"),
        *("--crop", "32,32", "--epochs", "1", "--milestones", "", "--clips-per-segment", "1"),
        *("--device", "cpu", "--workers", "0", "--no-tensorboard", *others),
    ]


def test_command_with_file_and_options(small_set: SmallSet, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("batch_size = 3\nhead_lr = 0.125\nlog_every_steps = 2\n")
    arguments = command_line(small_set, tmp_path / "run", "--config", str(config), "--json")
    arguments += ["--batch-size", "4", "--cache", str(tmp_path / "cache"), "--cache-codec", "raw"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 0
    assert json.loads(result.stdout)["best_epoch"] == 0
    assert "tsp extract --weights" in result.stderr
    recipe = read_run_recipe(tmp_path / "run")
    assert (recipe.batch_size, recipe.head_lr, recipe.name) == (4, 0.125, "tsp-activitynet")
    assert recipe.weight_decay == 0.005
    again = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(again.exception, TrainingError)
    assert "--resume" in str(again.exception)


def test_command_lists_recipes_and_fills_the_cache(small_set: SmallSet, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--list-recipes"], standalone_mode=False)
    assert "tac-thumos14" in result.stdout
    arguments = command_line(small_set, tmp_path / "run", "--cache-only")
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    arguments += ["--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 0
    assert "5 videos written" in result.stderr and "GB per hour" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "--gpus"])
def test_command_in_two_processes(small_set: SmallSet, tmp_path: Path, launcher: str) -> None:
    tsp = [sys.executable, "-m", "tspcli"]
    arguments = ["pretrain", *command_line(small_set, tmp_path / "run")]
    if launcher == "torchrun":
        tsp = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        tsp += ["--nproc-per-node=2", "-m", "tspcli"]
    else:
        arguments += ["--gpus", "2"]
    done = subprocess.run([*tsp, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    last = torch.load(tmp_path / "run" / "last.pth", weights_only=False)
    assert last["run"]["world_size"] == 2
    assert done.stderr.count("mean accuracy of the heads") == 1
