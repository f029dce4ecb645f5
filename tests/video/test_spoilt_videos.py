"""Spoilt videos: each ends as frames or as a named reason; nothing hangs, nothing grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video.spoilt_videos import Tally, decode_all, spoil_videos

pytestmark = pytest.mark.faults
_PEAK_MB = {"auto": 400, "pyav": 400, "decord": 700, "torchcodec": 1500}


def check(tally: Tally, decoder: str) -> None:
    # A decoder may hang, as decord does on some of these; the run goes on without it.
    assert tally.unended == []
    assert tally.faults == []
    # The time limit is for decoders that hang, not for files that wait for nothing.
    assert len(tally.hung) <= 0.01 * tally.ends.total()
    assert tally.ends["features"] > 0 and len(tally.ends) > 1
    assert tally.slowest_s < 120
    if Path("/proc/self/status").exists():
        assert 0 < tally.peak_mb < _PEAK_MB[decoder]


@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
def test_spoilt_videos_end_as_features_or_with_a_reason(tmp_path: Path, decoder: str) -> None:
    pytest.importorskip("av" if decoder == "auto" else decoder)
    tally = decode_all(spoil_videos(tmp_path, 400, seed=5), decoder)
    check(tally, decoder)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
def test_two_thousand_spoilt_videos(tmp_path: Path, decoder: str) -> None:
    pytest.importorskip("av" if decoder == "auto" else decoder)
    tally = decode_all(spoil_videos(tmp_path, 2000, seed=6), decoder)
    print(decoder, tally)
    check(tally, decoder)
