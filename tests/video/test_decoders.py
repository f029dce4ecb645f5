"""The table of decoders: what `auto` takes, and a decoder from outside the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.videos import make_video
from tspcli.cli.main import cli
from tspcli.errors import DependencyError, UsageError
from tspcli.video import decoders
from tspcli.video.decoders import DECODERS, DecoderEntry, resolve_decoders

TOY = """
from tspcli.video.decoders.pyav_source import PyavSource

class ToySource(PyavSource):
    decoder = "toy"

    def frames(self, start_s=None, *, wanted=None):
        self.warnings.append("decoded by a toy")
        yield from super().frames(start_s, wanted=wanted)
"""
WORDS = ("-w", "random", "--backbone", "tiny", "--device", "cpu", "--json")


def names(decoder: str) -> list[str]:
    return [entry.name for entry in resolve_decoders(decoder)]


@pytest.mark.parametrize(
    ("installed", "order"),
    [
        ({"av", "decord", "torchcodec"}, ["pyav", "decord"]),
        ({"av"}, ["pyav"]),
        ({"decord", "torchcodec"}, ["decord"]),
    ],
)
def test_auto_takes_the_fastest_first_and_never_torchcodec(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], order: list[str]
) -> None:
    found = {name: find_spec("json") for name in installed}
    monkeypatch.setattr(decoders, "find_spec", found.get)
    assert names("auto") == order


def test_auto_without_any_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "find_spec", lambda name: None)
    with pytest.raises(DependencyError) as caught:
        resolve_decoders("auto")
    assert "pip install av" in str(caught.value.remedy)
    with pytest.raises(DependencyError) as caught:
        resolve_decoders("decord")
    assert caught.value.data == {"value": "decord"}


def test_an_unknown_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_decoders(("pyav", "pyva"))
    assert caught.value.data == {"value": "pyva"}


def test_the_cpu_follows_a_decoder_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "find_spec", lambda name: find_spec("json"))
    assert names("torchcodec-cuda") == ["torchcodec-cuda", "pyav", "decord"]
    assert names("torchcodec") == ["torchcodec"]


def test_a_decoder_from_outside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs an entry and a module that can be imported; decode processes find it as well."""
    (tmp_path / "toy_decoder.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    toy = DecoderEntry("toy", "toy_decoder", "ToySource", package="av", summary="", remedy="")
    monkeypatch.setitem(DECODERS, "toy", toy)
    video, out = make_video(tmp_path / "v.mp4"), tmp_path / "f.h5"
    words = ["extract", "-v", str(video), "-o", str(out), *WORDS, "--decoder", "toy"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    [written] = json.loads(done.stdout)["videos"]
    assert (written["decoder"], written["warnings"]) == ("toy", ["decoded by a toy"])
    assert "toy" in CliRunner().invoke(cli, ["extract", "--help"]).stdout


def test_torchcodec_without_ffmpeg_says_what_it_needs(tmp_path: Path) -> None:
    package = tmp_path / "broken" / "torchcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text("raise OSError('libavutil.so.59: cannot open')")
    video, out = make_video(tmp_path / "v.mp4"), tmp_path / "f.h5"
    words = ["extract", "-v", str(video), "-o", str(out), *WORDS, "--decoder", "torchcodec"]
    done = subprocess.run(
        [sys.executable, "-m", "tspcli", *words],
        env={**os.environ, "PYTHONPATH": f"{package.parent}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    [failed] = json.loads(done.stdout)["videos"]
    assert failed["reason"] == "unsupported"
    assert "libavutil.so.59" in failed["detail"] and "apt-get install ffmpeg" in failed["detail"]
