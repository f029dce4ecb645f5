"""Whatever a file holds, our parsers read it or say what is wrong with it: no traceback."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from types import FrameType

import pytest

from tests.packaging.parsers import Parser, complaint, parsers

pytestmark = pytest.mark.faults
PARSERS = parsers()
_LIMIT_S = 30


@pytest.fixture(params=PARSERS, ids=[parser.name for parser in PARSERS])
def parser(request: pytest.FixtureRequest) -> Parser:
    chosen = request.param
    assert isinstance(chosen, Parser)
    return chosen


def hang(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no end within {_LIMIT_S} s")


def spoil(parser: Parser, folder: Path, count: int, seed: int) -> dict[str, bytes]:
    """Each distinct complaint about ``count`` spoilt files, with a file that brings it out."""
    rng = random.Random(seed)
    good = parser.good(folder)
    complaints: dict[str, bytes] = {}
    signal.signal(signal.SIGALRM, hang)
    for _ in range(count):
        data = parser.mutate(rng.choice(good), rng)
        path = folder / f"spoilt{parser.suffix}"
        path.write_bytes(data)
        signal.alarm(_LIMIT_S)
        try:
            found = complaint(parser, path)
        finally:
            signal.alarm(0)
        if found is not None:
            complaints.setdefault(found, data[:2000])
    return complaints


def test_good_files_are_read(parser: Parser, tmp_path: Path) -> None:
    for data in parser.good(tmp_path):
        path = tmp_path / f"good{parser.suffix}"
        path.write_bytes(data)
        if "checkpoint" not in parser.name and parser.name != "numpy pickle":
            parser.read(path)
        assert complaint(parser, path) is None


def test_spoilt_files_are_read_or_refused(parser: Parser, tmp_path: Path) -> None:
    assert spoil(parser, tmp_path, 60, seed=1) == {}


@pytest.mark.slow
def test_thousands_of_spoilt_files(parser: Parser, tmp_path: Path) -> None:
    assert spoil(parser, tmp_path, 4000, seed=2) == {}
