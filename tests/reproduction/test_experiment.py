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
from tests.reproduction.running import MINIATURE, run_command
from tspcli.core.progress import Reporter

pytestmark = pytest.mark.timeout(900)
Experiment = tuple[Path, ReproductionReport]


class Watch(Reporter):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def start(self, task: str, total: int, done: int = 0, about: object = "") -> None:
        if task != STAGES:
            self.begun.append(task)


def test_every_encoder_has_all_its_figures(experiment: Experiment) -> None:
    root, report = experiment
    summary = json.loads((root / "report" / "summary.json").read_text())
    figures = summary["figures"]["Rendered videos"]
    assert set(figures) == {"trimmed", "tac", "tsp-mean", "tsp-max"}
    for name, (values,) in figures.items():
        for key in ("map_0.50", "map", "ar_1", "ar_100", "auc"):
            assert 0 <= values[key] <= 1, (name, key)
        assert -1 <= values["separation"] <= 1
    assert "region_accuracy" in figures["tsp-max"][0]
    assert "region_accuracy" not in figures["tac"][0]
    # One seed confirms nothing.
    assert not report.confirmed


def test_the_report_begins_with_the_verdict(experiment: Experiment) -> None:
    _, report = experiment
    (verdict,) = report.verdicts
    assert report.table.read_text().splitlines()[0] == verdict
    page = report.page.read_text()
    assert re.search(r"<body>\s*<p class=\"verdict", page)
    assert "one seed cannot tell" in verdict
    figures = json.loads((experiment[0] / "report" / "summary.json").read_text())["figures"]
    ahead = (
        figures["Rendered videos"]["tsp-max"][0]["map"]
        - (figures["Rendered videos"]["tac"][0]["map"])
    )
    assert ("does NOT come out" in verdict) == (ahead <= 0)


def test_the_page_needs_nothing_else(experiment: Experiment) -> None:
    page = experiment[1].page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 2 + 1 + 3


def test_a_second_run_does_nothing(experiment: Experiment) -> None:
    root, report = experiment
    before = report.page.stat().st_mtime_ns
    watch = Watch()
    again = reproduce(MINIATURE, root, seeds=(3,), execute=run_command, reporter=watch)
    assert watch.begun == []
    assert again == report and again.page.stat().st_mtime_ns == before


def test_what_is_lost_is_made_again_and_nothing_else(experiment: Experiment) -> None:
    root, _report = experiment
    (root / "seed3" / "tac.bmn" / "results.json").unlink()
    watch = Watch()
    reproduce(MINIATURE, root, seeds=(3,), execute=run_command, reporter=watch)
    assert watch.begun[0] == "seed3/tac.bmn"
    assert set(watch.begun) <= {"seed3/tac.bmn", "seed3/tac.measures", "report"}


def test_the_gvf_is_the_one_that_each_variant_names(experiment: Experiment) -> None:
    root, _ = experiment
    for name, pool in (("tsp-mean", "mean"), ("tsp-max", "max")):
        record = StageRecord.read(root / "seed3" / name)
        assert record is not None and record.done
        assert f"--gvf-pool {pool}" in record.commands[0]
        assert f"/gvf/{pool}.h5" in record.commands[0]


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
    assert "mean mAP" in dumped.stdout and "Expected and got" in dumped.stdout
