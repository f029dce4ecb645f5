"""The scripts around the package: what is installed anew when, and what the demo runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.builders.videos import make_video
from tspcli import load_encoder
from tspcli.encoders.checkpoints import save_checkpoint
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.encoders.weights import find_weights
from tspcli.extraction import extract
from tspcli.fetch.sample_videos import SAMPLE_VIDEOS

ROOT = Path(__file__).parents[2]
PROJECT_FILES = (
    *("pyproject.toml", "setup.py", "constraints.txt", "Makefile"),
    "tools/environment_key.py",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of a checkout decides about its environment."""
    folder = tmp_path / "checkout"
    for name in (*PROJECT_FILES, ".ci/run"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def keys(checkout: Path) -> tuple[str, str, str]:
    command = [sys.executable, str(checkout / "tools/environment_key.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    interpreter, environment, project = done.stdout.split()
    return interpreter, environment, project


def test_the_environment_changes_with_what_is_installed_alone(checkout: Path) -> None:
    before = keys(checkout)
    assert keys(checkout) == before
    pins, project = checkout / "constraints.txt", checkout / "pyproject.toml"
    pins.write_text(pins.read_text() + "some-package==1.0\n")
    pinned = keys(checkout)
    assert pinned[0] == before[0] and pinned[1] != before[1] and pinned[2] == before[2]
    text = project.read_text()
    project.write_text(text.replace("dependencies = [", 'dependencies = ["some-package",', 1))
    declared = keys(checkout)
    makefile = checkout / "Makefile"
    recipes = makefile.read_text()
    makefile.write_text(recipes + "\nother:\n\techo something else\n")
    assert keys(checkout) == declared
    makefile.write_text(recipes.replace("call install,test,", "call install,test,more$(comma)", 1))
    assert keys(checkout)[1] != declared[1]
    makefile.write_text(recipes)
    assert declared[1] != pinned[1] and declared[2] != pinned[2]
    if sys.version_info >= (3, 11):
        project.write_text(text + "\n[tool.something]\nx = 1\n")
        described = keys(checkout)
        assert described[1] == pinned[1] and described[2] != pinned[2]


def test_a_second_run_of_the_checks_takes_the_same_environment(
    checkout: Path, tmp_path: Path
) -> None:
    """In another clone too; other pins mean another environment."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "make").write_text('#!/bin/sh\necho "make $1 in $VENV"\n')
    (tools / "make").chmod(0o755)
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHON": sys.executable,
    }
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    environment.pop("VENV", None)

    def run(folder: Path) -> str:
        command = ["bash", str(folder / ".ci/run")]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    first = run(checkout)
    assert first.startswith("make test in ") and str(tmp_path / "cache" / "tspcli") in first
    assert Path(first.removeprefix("make test in ")).is_dir()
    assert run(checkout) == first
    assert run(Path(shutil.copytree(checkout, tmp_path / "clone"))) == first
    (checkout / "constraints.txt").write_text("some-package==1.0\n")
    assert run(checkout) != first


def test_the_demo_runs_commands_that_exist_on_samples_that_exist(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("tsp", "python"):
        script = f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n'
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    out = tmp_path / "demo"
    command = ["sh", str(ROOT / "tools/demo.sh"), str(tools), str(out)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=60)
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call[:2] for call in calls] == [
        ["tsp", "sample-videos"],
        ["tsp", "weights"],
        ["tsp", "extract"],
        ["tsp", "inspect"],
        ["python", "tools/demo_picture.py"],
    ]
    weights = calls[1][3]
    assert find_weights(weights).classes == "kinetics400"
    assert calls[2][2:] == [
        *("--videos", f"{out}/videos", "--out", f"{out}/feats.h5", "--weights", weights)
    ]
    assert calls[4][2] == f"{out}/feats.h5"
    assert calls[4][3] in {Path(sample.name).stem for sample in SAMPLE_VIDEOS}


def load_demo_picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_picture", ROOT / "tools/demo_picture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demos_picture_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    names = tuple(f"class {letter}" for letter in "abcdefg")
    save_checkpoint(
        tmp_path / "w.pth", TspModel("tiny", Heads(7)), backbone="tiny", class_names=names
    )
    make_video(tmp_path / "film.mp4", n_frames=300)
    encoder = load_encoder(tmp_path / "w.pth", device="cpu")
    extract(tmp_path / "film.mp4", tmp_path / "f.h5", encoder=encoder)
    demo = load_demo_picture()
    rows = np.random.default_rng(0).standard_normal((9, encoder.feature_dim)).astype(np.float32)
    probabilities = demo.class_probabilities(encoder, rows)
    smooth = torch.from_numpy(rows[2:7].mean(axis=0, keepdims=True))
    logits = encoder.classify(smooth)
    assert logits is not None
    np.testing.assert_allclose(probabilities[4], logits.softmax(1)[0].numpy(), rtol=1e-5)
    from tspcli import open_store

    with open_store(tmp_path / "f.h5") as store:
        demo.print_table(store, encoder)
        demo.draw(store["film"], encoder, tmp_path / "film.png")
    line = next(text for text in capsys.readouterr().out.splitlines() if "film" in text)
    assert "9" in line.split() and line.count("class ") == 3
    from matplotlib import image

    picture = image.imread(tmp_path / "film.png")
    assert min(picture.shape[:2]) > 300 and picture[..., :3].std() > 0.05
    assert demo.main([]) == 2
