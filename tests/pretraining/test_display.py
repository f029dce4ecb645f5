"""What a run shows: everything that the user has to see, on a terminal and in a log."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tspcli.cli.pretrain_progress import LiveObserver, PlainObserver, step_figures, watch
from tspcli.pretraining.training_log import EpochResult, RunInfo, StepStatus

INFO = RunInfo(
    out="run",
    recipe={"name": "tsp-activitynet", "backbone": "tiny", "epochs": 8},
    n_train_clips=1000,
    n_valid_clips=300,
    n_steps=32,
    device="cuda:0",
    precision="bf16",
    world_size=2,
    first_epoch=3,
    first_step=7,
    chance={"action": 0.0123, "region": 0.51},
)
STATUS = StepStatus(
    epoch=3,
    epochs=8,
    step=8,
    n_steps=32,
    losses={"total": 1.75, "action": 1.25, "region": 0.5},
    accuracies={"action": 0.625, "region": 0.75},
    learning_rates={"stem": 0.0, "backbone": 1e-4, "fc": 2e-3},
    clips_per_s=321.5,
    wait_percent=12.0,
    left_s=7503.0,
)
RESULT = EpochResult(
    epoch=3,
    train={"loss": 1.5, "action_loss": 1.0, "action_accuracy": 0.7},
    valid={"loss": 1.4, "action_loss": 0.9, "action_accuracy": 0.71},
    score=0.71,
    best=True,
    learning_rates={"fc": 2e-3},
    clips_per_s=300.0,
    wait_percent=5.0,
    train_s=3.0,
    valid_s=1.0,
)
SHOWN = (
    *("total 1.750", "action 1.250", "region 0.500", "62.5%", "75.0%", "backbone 1.00e-04"),
    *("fc 2.00e-03", "321.5 clips/s", "12% waiting for data", "2:05:03 left"),
)


def test_a_step_shows_all_figures() -> None:
    line = step_figures(STATUS)
    assert all(text in line for text in SHOWN)
    assert "stem" not in line  # it does not learn


def test_a_log_says_when_all_videos_were_tried() -> None:
    stream = StringIO()
    with watch(Console(file=stream, width=400)) as observer:
        for done in (1, 2, 3):
            observer.checking("v.mp4", done, 3)
    assert stream.getvalue().splitlines()[-1] == "trying to read: 3/3 videos"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_whole_run(terminal: bool) -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=400, highlight=False)
    with watch(console) as observer:
        assert isinstance(observer, LiveObserver if terminal else PlainObserver)
        observer.started(INFO)
        observer.caching("v.mp4", 1, 1)
        observer.stepped(STATUS)
        observer.validating(5, 10)
        observer.epoch_ended(RESULT)
        observer.message("a [bold] note")
        if isinstance(observer, LiveObserver):
            observer.display.refresh()
    text = stream.getvalue()
    if terminal:
        assert all(part in text for part in SHOWN)
    assert "2 × cuda:0 (bf16)" in text
    assert "action 1.23%, region 51.00%" in text
    assert "Goes on at epoch 3, step 7" in text
    assert "mean accuracy 71.00% (best so far)" in text
    assert "a [bold] note" in text
