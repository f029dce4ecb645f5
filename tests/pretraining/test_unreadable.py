"""Video that cannot be read: named and stopped at, or skipped, counted, and the same everywhere."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.pretraining import processes
from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tests.pretraining.test_distributed import FROZEN, HALVES, parameters
from tests.pretraining.test_pretrain import Recorder, command_line
from tests.pretraining.test_resume import assert_same, final, train_and_die
from tspcli.cli.pretrain import command
from tspcli.errors import TrainingError, VideoError
from tspcli.pretraining import pretrain
from tspcli.pretraining.clip_cache_file import VideoClips
from tspcli.pretraining.data import RunInputs, load_data
from tspcli.pretraining.epoch_plan import ClipPlan
from tspcli.pretraining.training_log import read_results

SKIP = replace(QUIET, on_unreadable="skip")
DAMAGED = {"train_0000.mp4": 40, "valid_0000.mp4": 20}
"""Videos of which no clip can be read that begins before a sample."""


def damage() -> None:
    """Let the middle of some videos be unreadable in this process."""
    read = VideoClips.read

    def partly(self: VideoClips, video: int, start_sample: int) -> Any:
        name = self.paths[video].name
        if start_sample < DAMAGED.get(name, 0):
            raise VideoError("damaged", "bits are missing", path=name)
        return read(self, video, start_sample)

    VideoClips.read = partly  # type: ignore[method-assign]  # in this process alone


def train_damaged(arguments: dict[str, Any], moment: str = "never") -> None:
    damage()
    train_and_die(arguments, moment)


def expect_stop(arguments: dict[str, Any], match: str) -> None:
    damage()
    with pytest.raises(TrainingError, match=match):
        pretrain(**arguments)


@pytest.fixture(scope="module")
def skipped(small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("skipped") / "run"
    execution = replace(SKIP, checkpoint_every_steps=2)
    arguments = small_set.arguments(out=out, recipe=FROZEN, execution=execution)
    assert processes.run(train_damaged, arguments) == 0
    return out


# --- found in training ----------------------------------------------------------------------------


def test_clips_that_fail_are_replaced_or_left_out_and_counted(
    small_set: SmallSet, skipped: Path
) -> None:
    inputs = RunInputs((small_set.videos,), small_set.train, small_set.valid, small_set.labels)
    plans = load_data(inputs, FROZEN).plans

    def bad(plan: ClipPlan, epoch: int, name: str) -> int:
        requests = [plan.request(epoch, sample) for sample in range(plan.n_samples)]
        names = [plan.table.filenames[plan.table.video[r.segment]] for r in requests]
        starts = [r.start_sample for r, n in zip(requests, names, strict=True) if n == name]
        return sum(start < DAMAGED[name] for start in starts)

    results = read_results(skipped)
    for result in results:
        n_train = bad(plans["train"], result.epoch, "train_0000.mp4")
        n_valid = bad(plans["valid"], 0, "valid_0000.mp4")
        assert n_train > 0 and n_valid > 0
        assert result.unreadable == {
            "train": {"train_0000.mp4": n_train},
            "valid": {"valid_0000.mp4": n_valid},
        }
        counted = plans["valid"].n_samples - n_valid
        right = result.valid["region_accuracy"] * counted
        assert right == pytest.approx(round(right), abs=1e-6)
        clips = "1 clip" if n_train == 1 else f"{n_train} clips"
        assert f"{clips} of 1 video replaced in training" in result.line()
    assert all(value.isfinite().all() for value in parameters(skipped).values())


def test_stand_ins_are_of_the_same_class_and_repeat(small_set: SmallSet) -> None:
    inputs = RunInputs((small_set.videos,), small_set.train, small_set.valid, small_set.labels)
    plan = load_data(inputs, FAST).plans["train"]
    for sample in range(plan.n_samples):
        request = plan.request(1, sample)
        stand_ins = list(plan.stand_ins(request))
        assert stand_ins == list(plan.stand_ins(request))
        classes = {int(plan.table.action[other.segment]) for other in stand_ins}
        assert classes == {int(plan.table.action[request.segment])}
        assert len({other.start_sample for other in stand_ins}) > 3
    one, other = (list(plan.stand_ins(plan.request(epoch, 0))) for epoch in (0, 1))
    assert [r.start_sample for r in one] != [r.start_sample for r in other]


def test_two_processes_skip_as_one(small_set: SmallSet, skipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = small_set.arguments(out=out, recipe=HALVES, execution=SKIP)
    assert processes.run_together(2, train_damaged, arguments) == [0, 0]
    for one, other in zip(read_results(out), read_results(skipped), strict=True):
        assert one.unreadable == other.unreadable
        assert one.valid == pytest.approx(other.valid, rel=1e-3)
    expected = parameters(skipped)
    for name, value in parameters(out).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.faults
def test_skipping_run_killed_and_resumed(
    small_set: SmallSet, skipped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    execution = replace(SKIP, checkpoint_every_steps=2)
    arguments = small_set.arguments(out=out, recipe=FROZEN, execution=execution)
    assert processes.run(train_damaged, arguments, "step 1.3") == -signal.SIGKILL
    assert processes.run(train_damaged, {**arguments, "resume": True}) == 0
    assert_same(final(out), final(skipped))


def test_all_processes_stop_at_a_clip(small_set: SmallSet, tmp_path: Path) -> None:
    """The one that cannot read it and the one that can, with the same message."""
    arguments = small_set.arguments(out=tmp_path / "run", recipe=HALVES)
    message = r"train_0000\.mp4 at \d\.\d\d s: .*bits are missing.*on-unreadable skip"
    assert processes.run_together(2, expect_stop, arguments, message) == [0, 0]
    assert processes.run(expect_stop, {**arguments, "out": tmp_path / "one"}, message) == 0
    # What stopped at a clip goes on without it.
    resumed = {**arguments, "resume": True, "execution": SKIP}
    assert processes.run_together(2, train_damaged, resumed) == [0, 0]


# --- found before training ------------------------------------------------------------------------


@pytest.fixture
def damaged_set(small_set: SmallSet, tmp_path: Path) -> SmallSet:
    """One training video is no video, and another ends long before its table says."""
    videos = tmp_path / "videos"
    shutil.copytree(small_set.videos / "train", videos / "train")
    shutil.copytree(small_set.videos / "valid", videos / "valid")
    (videos / "train" / "train_0001.mp4").write_bytes(b"nothing")
    from tests.builders.videos import make_video

    make_video(videos / "valid" / "valid_0001.mp4", fps=30, n_frames=60)
    return replace(small_set, videos=videos)


@pytest.mark.parametrize("cached", [False, True], ids=["seeking", "cached"])
def test_all_unreadable_videos_are_named_before_anything_is_written(
    damaged_set: SmallSet, tmp_path: Path, cached: bool
) -> None:
    out, cache = tmp_path / "run", str(tmp_path / "cache") if cached else ""
    recorder = Recorder()
    arguments = damaged_set.arguments(out=out, execution=replace(QUIET, cache=cache))
    with pytest.raises(TrainingError, match=r"2 videos cannot be read: train_0001.*valid_0001"):
        pretrain(**arguments, reporter=recorder)
    assert sum("cannot be read: " in text for text in recorder.messages) == 2
    assert any("2.00 s" in text for text in recorder.messages)
    assert not out.exists()
    skip = {**arguments, "execution": replace(SKIP, cache=cache)}
    report = pretrain(**skip, stop_requested=lambda: True)
    assert set(report.left_out) == {"train_0001.mp4", "valid_0001.mp4"}
    assert set(json.loads((out / "unreadable.json").read_text())) == set(report.left_out)
    report = pretrain(**skip, resume=True)
    assert len(report.epochs) == 2 and set(report.left_out) == {"train_0001.mp4", "valid_0001.mp4"}


def test_resumed_run_keeps_to_what_it_began_with(damaged_set: SmallSet, tmp_path: Path) -> None:
    """A video that was left out stays so when it can be read; one that was not must not fail."""
    out, cache = tmp_path / "run", str(tmp_path / "cache")
    arguments = damaged_set.arguments(out=out, execution=replace(SKIP, cache=cache))
    first = pretrain(**arguments, stop_requested=lambda: True)
    train = damaged_set.videos / "train"
    shutil.copy(train / "train_0000.mp4", train / "train_0001.mp4")
    again = pretrain(**arguments, resume=True, stop_requested=lambda: True)
    assert again.left_out == first.left_out
    (train / "train_0002.mp4").write_bytes(b"gone")
    with pytest.raises(TrainingError, match="1 video could be read when the run began"):
        pretrain(**arguments, resume=True)


def test_video_without_global_features_may_be_left_out(
    damaged_set: SmallSet, tmp_path: Path
) -> None:
    """`tsp gvf` cannot read it either."""
    partial = tmp_path / "partial.h5"
    shutil.copy(damaged_set.gvf, partial)
    with h5py.File(partial, "r+") as file:
        del file["train_0001"]
    recipe = replace(FAST, gvf_pool="max", gvf_weights="tiny-weights")
    arguments = damaged_set.arguments(out=tmp_path / "run", recipe=recipe, gvf=partial)
    with refused(TrainingError, option="gvf", missing=["train_0001.mp4"]):
        pretrain(**arguments)
    report = pretrain(**{**arguments, "execution": SKIP}, stop_requested=lambda: True)
    assert "train_0001.mp4" in report.left_out


def test_command(damaged_set: SmallSet, tmp_path: Path) -> None:
    cache = ["--cache", str(tmp_path / "cache"), "--cache-only"]
    arguments = command_line(damaged_set, tmp_path / "run", *cache)
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(result.exception, TrainingError)
    assert "train_0001.mp4 cannot be read" in result.stderr
    result = CliRunner().invoke(
        command, [*arguments, "--on-unreadable", "skip"], standalone_mode=False
    )
    assert result.return_value == 3
