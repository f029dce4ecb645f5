"""`tsp plot` refuses options without effect, and names a video that it cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.stores import features, store
from tspcli.cli.main import cli
from tspcli.errors import TspError, UsageError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--title", "a", "--title", "b"], "2 titles were given for 1 store; 'b'"),
        (["--own-scales"], "--own-scales needs --against"),
        (["--thumbnails", "4"], "--thumbnails needs --video"),
        (["-o", "{}/p.gif"], "'p.gif' does not end in"),
    ],
)
def test_options_without_effect(tmp_path: Path, options: list[str], said: str) -> None:
    path = store(tmp_path / "s.h5", {"v_a": features(20, 0)})
    options = [option.format(tmp_path) for option in options]
    command = ["plot", str(path), "a", "-o", str(tmp_path / "p.html"), *options]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    # Not the first of two files either.
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize("content", [None, b"no video"])
def test_a_video_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = store(tmp_path / "s.h5", {"v_a": features(20, 0)})
    if content is not None:
        (tmp_path / "nope.mp4").write_bytes(content)
    command = ["plot", str(path), "a", "-o", str(tmp_path / "p.html")]
    command += ["--video", str(tmp_path / "nope.mp4")]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert isinstance(result.exception, TspError)
    assert "nope.mp4" in result.exception.message
    assert result.exception.remedy
