"""Finding a video by what a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.stores import features, store
from tspcli.core.video_names import store_key
from tspcli.errors import UsageError
from tspcli.store import open_store
from tspcli.store.store_set import find_video

ODD = "two\nlines \udcff"
KEYS = ("v_x", "v_one.row", "v_50% off", store_key("v_" + ODD), "v_a%0Ab")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store(tmp_path / "s.h5", {key: features(3, 0) for key in KEYS})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("v_x", "v_x"),
        ("x", "v_x"),
        ("v_x.mp4", "v_x"),
        ("x.MKV", "v_x"),
        ("v_x.ogm", "v_x"),
        ("videos/v_x.webm", "v_x"),
        ("v_one.row", "v_one.row"),
        ("v_one.row.mp4", "v_one.row"),
        ("50% off", "v_50% off"),
        ("v_" + ODD, KEYS[3]),
        (ODD + ".mp4", KEYS[3]),
        ("v_a%0Ab", "v_a%0Ab"),
        ("v_a\nb", "v_a%0Ab"),
    ],
)
def test_found(path: Path, name: str, key: str) -> None:
    with open_store(path) as opened:
        assert find_video(opened, name).key == key


@pytest.mark.parametrize(
    ("name", "suggested"), [("v_x.part2", "'v_x'"), ("v_one.raw.mp4", "'v_one.row'")]
)
def test_suggested(path: Path, name: str, suggested: str) -> None:
    with open_store(path) as opened, pytest.raises(UsageError, match="no video") as caught:
        find_video(opened, name)
    assert suggested in str(caught.value.remedy)
