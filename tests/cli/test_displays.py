"""What a run shows on a terminal and in a log."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tspcli.cli import displays
from tspcli.cli.displays import LiveBars, PlainLines, watch
from tspcli.core.progress import Reporter
from tspcli.extraction import RunFigures, VideoResult
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


FIGURES = RunFigures(
    n_videos=4, n_ended=2, n_failed=1, n_clips=100, video_s=250.0, total_bytes=1000,
    ended_bytes=500, elapsed_s=50.0, decode_wait_s=1.0, encode_s=40.0,
)  # fmt: skip
FAILED = VideoResult("v", "v[0].mp4", "failed", reason="unreadable", detail="it is empty")


def shown(report: Reporter) -> None:
    """An extraction and a training, one after the other."""
    report.start("videos", 4, about="4 videos to do, 2 kept from an earlier run")
    report.advance("videos", 2, FIGURES)
    report.result(FAILED)
    report.result(VideoResult("w", "w.mp4", "done", n_rows=3))
    report.message("a [bold] \x1b[31m note")
    report.result(INFO)
    report.start("epochs", 8, 3)
    for _ in range(2):
        report.start("training", 32, 7)
        report.advance("training", 8, STATUS)
    report.result(RESULT)


def test_a_step_shows_all_figures() -> None:
    line = STATUS.line()
    assert all(text in line for text in SHOWN)
    assert "stem" not in line  # it does not learn


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_run_reports_is_shown(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(displays, "PLAIN_EVERY_S", 0.0)
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=400, highlight=False)
    with watch(console) as report:
        assert isinstance(report, LiveBars if terminal else PlainLines)
        shown(report)
        if isinstance(report, LiveBars):
            report.display.refresh()
    text = stream.getvalue()
    assert all(part in text for part in SHOWN)
    for part in (
        "2.0 clips/s, 5.0 s of video/s, limited by encoding, 0:50 left, 1 failed",
        "failed: v[0].mp4: unreadable: it is empty",
        "a [bold] \\x1b[31m note",
        "2 × cuda:0 (bf16)",
        "action 1.23%, region 51.00%",
        "Resumes at epoch 3, step 7",
        "mean accuracy 71.00% (best so far)",
    ):
        assert part in text
    assert "w.mp4" not in text
    if terminal:
        assert "2/4" in text and "3/8" in text
    else:
        lines = text.splitlines()
        assert lines[0] == "4 videos to do, 2 kept from an earlier run"
        assert lines[1].startswith("videos: 2/4, 2.0 clips/s")


def test_a_log_gets_a_line_now_and_then() -> None:
    stream = StringIO()
    with watch(Console(file=stream, width=400)) as report:
        report.start("videos", 100)
        for done in range(100):
            report.advance("videos", done)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_displays_ask_whether_to_stop(terminal: bool) -> None:
    console = Console(file=StringIO(), force_terminal=terminal)
    with watch(console, lambda: True) as report:
        assert report.stop_requested()
