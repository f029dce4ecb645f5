"""The whole experiment in miniature: stages, report, and what a second run does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reproduction.run import ReproductionReport, reproduce
from reproduction.stages import STAGES, StageRecord
from tests.reproduction.running import MINIATURE
from tspcli.core.progress import Reporter

pytestmark = pytest.mark.timeout(900)
Experiment = tuple[Path, ReproductionReport]


class Watch(Reporter):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def start(self, task: str, total: int, done: int = 0, about: object = "") -> None:
        if task != STAGES:
            self.begun.append(task)


GROUP = "Rendered videos, p = 0.9"


def test_every_encoder_has_all_its_figures(experiment: Experiment) -> None:
    root, report = experiment
    figures = json.loads((root / "report" / "summary.json").read_text())["figures"][GROUP]
    assert set(figures) == {"trimmed", "tac-matched", "tsp-none"}
    for name, by_seed in figures.items():
        (values,) = by_seed.values()
        for key in ("map_0.50", "map", "unseen_map", "oracle_map", "ar_1", "auc", "missed"):
            assert 0 <= values[key] <= 1, (name, key)
        assert -1 <= values["separation"] <= 1
        assert 0 <= values["says_inside"] <= 1 and 0 <= values["says_outside"] <= 1
    assert "region_accuracy" in figures["tsp-none"]["3"]
    assert "region_accuracy" not in figures["trimmed"]["3"]
    # One seed confirms nothing.
    assert report.decisions == ("undecided",)


def test_the_report_begins_with_the_verdict(experiment: Experiment) -> None:
    _, report = experiment
    (verdict,) = report.verdicts
    assert report.table.read_text().splitlines()[0] == verdict
    assert re.search(r"<body>\s*<p class=\"verdict", report.page.read_text())
    assert "one seed, which decides nothing" in verdict


def test_the_page_needs_nothing_else(experiment: Experiment) -> None:
    page = experiment[1].page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 3


def test_the_last_epoch_counts(experiment: Experiment) -> None:
    """Nothing is chosen on validation videos."""
    record = StageRecord.read(experiment[0] / "p0.9/seed3/tsp-none.features")
    assert record is not None and "tsp-none/run/last.pth" in record.commands[0]


def test_a_second_run_does_nothing(experiment: Experiment) -> None:
    root, report = experiment
    before = report.page.stat().st_mtime_ns
    watch = Watch()
    again = reproduce(MINIATURE, root, reporter=watch)
    assert watch.begun == []
    assert again == report and again.page.stat().st_mtime_ns == before


def test_what_is_lost_is_made_again_and_nothing_else(experiment: Experiment) -> None:
    root, _report = experiment
    lost = "p0.9/seed3/tsp-none.localized"
    (root / lost / "results-validation.json").unlink()
    watch = Watch()
    reproduce(MINIATURE, root, reporter=watch)
    assert watch.begun[0] == lost and set(watch.begun) <= {lost, "report"}


def test_the_page_in_a_browser(experiment: Experiment, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no Chromium to open the page in")
    shot = tmp_path / "page.png"
    page = experiment[1].page
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    arguments += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [browser, *arguments, "--window-size=1240,4200", f"--screenshot={shot}", page.as_uri()],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert shot.exists(), done.stderr[-800:]
    import cv2
    import numpy as np

    pixels = cv2.imread(str(shot))
    assert pixels is not None and pixels.shape[:2] == (4200, 1240)
    # Tables above, pictures below: both halves of the page show something.
    for half in (pixels[:1500], pixels[1500:3000]):
        assert np.asarray(half, float).std() > 10
    dumped = subprocess.run(
        [browser, *arguments, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    assert "mean mAP" in dumped.stdout and "leads" in dumped.stdout
