"""A run that was killed at any instant ends, resumed, with the same parameters, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.pretraining import processes
from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tspcli.core.progress import Reporter
from tspcli.errors import CheckpointError, StoreLockedError, TrainingError
from tspcli.pretraining import pretrain
from tspcli.pretraining.run_state import RunState
from tspcli.pretraining.training_log import VALIDATION, EpochResult, StepStatus
from tspcli.pretraining.tsp_losses import Meter, figure_names

EXECUTION = replace(QUIET, checkpoint_every_steps=2)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Assassin(Reporter):
    """Kills its own process at a step, in a validation, or after an epoch."""

    def __init__(self, moment: str) -> None:
        self.what, _, place = moment.partition(" ")
        self.place = place

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        if isinstance(figures, StepStatus) and self.what == "step":
            if self.place == f"{figures.epoch}.{figures.step}":
                die()
        elif task == VALIDATION and self.what == "validation":
            die()

    def result(self, result: Any) -> None:
        if isinstance(result, EpochResult) and (self.what, self.place) == (
            "epoch",
            str(result.epoch),
        ):
            die()


def train_and_die(arguments: dict[str, Any], moment: str) -> None:
    """Train until a moment. ``write N`` is the N-th time that a file is about to be renamed into
    place, ``written N`` just after it.
    """
    what, _, place = moment.partition(" ")
    if what in ("write", "written"):
        count = 0

        def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*paths: Any) -> Any:
                nonlocal count
                count += 1
                if what == "write" and count == int(place):
                    die()
                result = function(*paths)
                if count == int(place):
                    die()
                return result

            return wrapper

        os.replace = deadly(os.replace)  # type: ignore[assignment]  # in this process alone
    pretrain(**arguments, reporter=Assassin(moment))


def final(out: Path) -> dict[str, Any]:
    """Everything that has to be the same: parameters, statistics, momenta, results but times."""
    content = torch.load(out / "last.pth", weights_only=False)
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for result in results:
        for name in ("clips_per_s", "wait_percent", "train_s", "valid_s"):
            del result[name]
    best = torch.load(out / "best.pth", weights_only=False)
    return {
        "model": content["model"],
        "momenta": content["optimizer"]["state"],
        "best": best["model"],
        "results": results,
    }


def assert_same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def undisturbed(small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert processes.run(pretrain, **small_set.arguments(out=out, execution=EXECUTION)) == 0
    return final(out)


def slow(*moments: str) -> list[Any]:
    return [pytest.param(moment, marks=pytest.mark.slow) for moment in moments]


MOMENTS = [
    "step 0.1",  # before the first checkpoint
    "step 0.3",  # after one, inside an epoch
    "validation",
    "write 1",  # the run's folder is being made
    "write 5",
    "written 6",
    *slow("step 1.4", "epoch 0", *(f"write {n}" for n in (2, 3, 4, 6, 7, 8))),
    *slow(*(f"written {n}" for n in (1, 2, 3, 4, 5, 7, 8))),
]


@pytest.mark.faults
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed(
    small_set: SmallSet, undisturbed: dict[str, Any], tmp_path: Path, moment: str
) -> None:
    arguments = small_set.arguments(out=tmp_path / "run", execution=EXECUTION)
    assert processes.run(train_and_die, arguments, moment) == -signal.SIGKILL
    assert processes.run(pretrain, **arguments, resume=True) == 0
    assert_same(final(tmp_path / "run"), undisturbed)
    assert not list((tmp_path / "run").glob("*.tmp"))


@pytest.mark.faults
def test_killed_again_and_again(
    small_set: SmallSet, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    arguments = small_set.arguments(out=tmp_path / "run", execution=EXECUTION, resume=True)
    for moment in ("step 0.2", "write 4", "step 1.3"):
        assert processes.run(train_and_die, arguments, moment) == -signal.SIGKILL
    assert processes.run(pretrain, **arguments) == 0
    assert_same(final(tmp_path / "run"), undisturbed)


def test_two_runs_with_one_seed_are_identical(
    small_set: SmallSet, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever the number of loader processes, and from the cache too where that is exact."""
    execution = replace(EXECUTION, workers=1, cache=str(tmp_path / "cache"), cache_codec="webp")
    pretrain(**small_set.arguments(out=tmp_path / "a", execution=execution))
    assert_same(final(tmp_path / "a"), undisturbed)
    other = replace(FAST, seed=4)
    pretrain(**small_set.arguments(out=tmp_path / "b", recipe=other, execution=EXECUTION))
    with pytest.raises(AssertionError):
        assert_same(final(tmp_path / "b"), undisturbed)


def test_asked_to_stop_then_resumed(
    small_set: SmallSet, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    steps = iter([False, False, False, True])
    arguments = small_set.arguments(out=tmp_path / "run", execution=QUIET)
    said: list[str] = []
    listener = Reporter()
    listener.message = said.append  # type: ignore[method-assign]  # of this one alone
    # A job that always says --resume begins its run so, but not without a word.
    report = pretrain(
        **arguments, stop_requested=lambda: next(steps), resume=True, reporter=listener
    )
    assert report.stopped
    assert any("no run to resume" in text for text in said)
    assert report.epochs == []
    with pytest.raises(TrainingError, match="already holds a run"):
        pretrain(**arguments)
    seen: list[StepStatus] = []

    class Watcher(Reporter):
        def advance(self, task: str, done: int, figures: Any = "") -> None:
            if isinstance(figures, StepStatus):
                seen.append(figures)

    report = pretrain(**arguments, resume=True, reporter=Watcher())
    assert (seen[0].epoch, seen[0].step) == (0, 5)
    assert not report.stopped
    assert_same(final(tmp_path / "run"), undisturbed)
    # A run that is done is left as it is.
    again = pretrain(**arguments, resume=True)
    assert again.epochs == report.epochs
    assert_same(final(tmp_path / "run"), undisturbed)


def test_other_settings_and_data_are_refused(small_set: SmallSet, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stop = {"stop_requested": lambda: True}
    pretrain(**small_set.arguments(out=out), **stop)
    with pytest.raises(TrainingError) as raised:
        pretrain(**small_set.arguments(out=out, recipe=replace(FAST, head_lr=0.5)), resume=True)
    assert set(cast(dict[str, str], raised.value.data["differences"])) == {"head_lr"}
    swapped = {"train": small_set.valid, "valid": small_set.train}
    with pytest.raises(TrainingError) as raised:
        pretrain(**small_set.arguments(out=out, **swapped), resume=True)
    assert raised.value.data["differs"] == "data"
    (out / "last.pth").write_bytes((out / "last.pth").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"last\.pth"):
        pretrain(**small_set.arguments(out=out), resume=True)


def test_state_of_version_0_1_is_read(small_set: SmallSet, tmp_path: Path) -> None:
    """It has six sums by their place; as many epochs as it says have ended."""
    stored = RunState(step=3).to_dict()
    del stored["figures"]
    stored["sums"] = [6.0, 5.0, 2.0, 4.0, 9.0, 10.0]
    state = RunState.from_dict(stored)
    meter = Meter(figure_names(("action", "region")))
    meter.load(state.figures)
    assert meter.means() == {
        "action_loss": 6 / 4,
        "region_loss": 5 / 10,
        "action_accuracy": 2 / 4,
        "region_accuracy": 9 / 10,
    }
    assert state.step == 3
    assert RunState.from_dict(state.to_dict()) == state

    steps = iter([False, False, True])
    arguments = small_set.arguments(out=tmp_path / "run")
    pretrain(**arguments, stop_requested=lambda: next(steps))
    last = tmp_path / "run" / "last.pth"
    content = torch.load(last, weights_only=False)
    figures = content["run"]["state"].pop("figures")
    content["run"]["version"] = 1
    content["run"]["state"]["sums"] = [
        *(figures["action_loss"][0], figures["region_loss"][0]),
        *figures["action_accuracy"],
        *figures["region_accuracy"],
    ]
    torch.save(content, last)
    report = pretrain(**arguments, resume=True)
    undisturbed = pretrain(**small_set.arguments(out=tmp_path / "other"))
    assert [epoch.train for epoch in report.epochs] == [e.train for e in undisturbed.epochs]


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_run_is_not_resumed_from_a_checkpoint_that_carries_code(
    small_set: SmallSet, tmp_path: Path
) -> None:
    out, written = tmp_path / "run", tmp_path / "written"
    pretrain(**small_set.arguments(out=out), stop_requested=lambda: True)
    content = torch.load(out / "last.pth", weights_only=False)
    content["run"]["state"]["carried"] = Payload(written)
    torch.save(content, out / "last.pth")
    with pytest.raises(CheckpointError) as caught:
        pretrain(**small_set.arguments(out=out), resume=True)
    assert Path(str(caught.value.data["path"])) == out / "last.pth"
    assert str(caught.value.data["refused"]).endswith(".mkdir")
    assert not written.exists()
    torch.load(out / "last.pth", weights_only=False)
    assert written.exists()


def test_one_run_a_folder(small_set: SmallSet, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = small_set.arguments(out=out)

    class Intruder(Reporter):
        def advance(self, task: str, done: int, figures: Any = "") -> None:
            if not isinstance(figures, StepStatus):
                return
            with pytest.raises(StoreLockedError, match="another run"):
                pretrain(**arguments, resume=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(**arguments, reporter=Intruder())
