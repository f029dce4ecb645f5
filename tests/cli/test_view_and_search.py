"""``tsp search`` and ``tsp view`` as programs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.stores import features, store
from tspcli.cli.search import command as search
from tspcli.errors import UsageError


@pytest.fixture
def feats(tmp_path: Path) -> Path:
    videos = {f"v_{n}": features(40, n) for n in range(3)}
    videos["v_1"][20:23] = videos["v_0"][4:7]
    return store(tmp_path / "feats.h5", videos)


def test_the_moments_as_a_table_and_as_json(feats: Path):
    example = ["--like", "0@4.3-7.4", "--top", "3"]
    table = CliRunner().invoke(search, [str(feats), *example], catch_exceptions=False)
    assert table.exit_code == 0
    assert "v_1" in table.output.splitlines()[1]
    found = json.loads(CliRunner().invoke(search, [str(feats), *example, "--json"]).output)
    assert len(found) == 3
    assert found[0]["video"] == "v_1"
    assert found[0]["start_s"] == pytest.approx(20 * 16 / 15, abs=0.01)
    assert found[0]["store"] == str(feats)


def test_in_another_store(feats: Path, tmp_path: Path):
    archive = store(tmp_path / "b.h5", {"x": features(40, 0)})
    words = [str(feats), "--like", "v_0@4.3-7.4", "--in", str(archive), "--json", "--top", "1"]
    (found,) = json.loads(CliRunner().invoke(search, words, catch_exceptions=False).output)
    assert (found["store"], found["video"]) == (str(archive), "x")
    assert found["start_s"] == pytest.approx(4 * 16 / 15, abs=0.01)


@pytest.mark.parametrize("like", ["v_0", "v_0@1", "v_0@2-1", "v_9@1-2", "@1-2", "v_0@900-901"])
def test_an_example_that_is_none(feats: Path, like: str):
    with pytest.raises(UsageError):
        CliRunner().invoke(search, [str(feats), "--like", like], catch_exceptions=False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_page_is_served_until_it_is_stopped(feats: Path, number: int, code: int):
    pytest.importorskip("starlette")
    words = [sys.executable, "-m", "tspcli", "view", str(feats), "--no-browser"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stderr.readline())
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=20) as answer:
            assert b"<title>tsp view" in answer.read()
        process.send_signal(number)
        assert process.wait(20) == code
