"""Which decoders `auto` takes, and in which order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.videos import make_video
from tspcli.errors import DependencyError
from tspcli.video import decoders as registry
from tspcli.video.decoders import resolve_decoders


@pytest.mark.parametrize(
    ("installed", "order"),
    [
        ({"pyav", "decord", "torchcodec", "torchcodec-cuda"}, ("pyav", "decord")),
        ({"pyav"}, ("pyav",)),
        ({"decord", "torchcodec"}, ("decord",)),
    ],
)
def test_auto_takes_the_fastest_first_and_never_torchcodec(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], order: tuple[str, ...]
) -> None:
    monkeypatch.setattr(registry, "is_installed", installed.__contains__)
    assert resolve_decoders("auto") == order


def test_auto_without_any_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "is_installed", lambda name: name == "torchcodec")
    with pytest.raises(DependencyError) as caught:
        resolve_decoders("auto")
    assert "pip install av" in str(caught.value.remedy)


def test_torchcodec_without_ffmpeg_says_what_it_needs(tmp_path: Path) -> None:
    package = tmp_path / "broken" / "torchcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text("raise OSError('libavutil.so.59: cannot open')")
    video, out = make_video(tmp_path / "v.mp4"), tmp_path / "f.h5"
    words = ["extract", "-v", str(video), "-o", str(out), "-w", "tiny", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tspcli", *words, "--decoder", "torchcodec"],
        env={**os.environ, "PYTHONPATH": f"{package.parent}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    [failed] = json.loads(done.stdout)["videos"]
    assert failed["reason"] == "unsupported"
    assert "libavutil.so.59" in failed["detail"] and "apt-get install ffmpeg" in failed["detail"]
