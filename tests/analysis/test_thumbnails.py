"""Frames of the video over the features: each is the one that is shown at its second."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.analysis.test_picture import drawn, strip
from tests.builders.stores import features, store
from tests.builders.videos import make_video, read_number
from tspcli.analysis import PlotData, Thumbnail
from tspcli.cli.main import cli

DURATION_S = 8 * 16 / 15 + 0.5
"""Of the video, which no clip reaches; the axis does."""


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("start", [0, 900])
def test_frames_are_those_of_their_seconds(tmp_path: Path, count: int, start: int) -> None:
    """Seconds count from the first frame, wherever the file's clock starts."""
    image = pytest.importorskip("PIL.Image")
    path = store(tmp_path / "s.h5", {"v_a": features(8, 0)})
    make_video(
        tmp_path / "v_a.mp4", fps=25, n_frames=215, start=start, time_base=Fraction(1, 450),
        times=[18 * k for k in range(215)],
    )  # fmt: skip
    command = ["plot", str(path), "a", "-o", str(tmp_path / "p.html")]
    command += ["--video", str(tmp_path / "v_a.mp4"), "--thumbnails", str(count)]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "p.html").read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    shown = json.loads(found[1])  # type: ignore[index]  # or it fails here
    assert shown["duration"] == pytest.approx(DURATION_S)
    thumbnails = shown["thumbnails"]
    expected = [(number + 0.5) / count * DURATION_S for number in range(count)]
    assert [t["time"] for t in thumbnails] == pytest.approx(expected, abs=1 / 25)
    for thumbnail, time in zip(thumbnails, expected, strict=True):
        data = base64.b64decode(thumbnail["uri"].split(",", 1)[1])
        with image.open(io.BytesIO(data)) as opened:
            assert read_number(np.asarray(opened)) == int(time * 25)


def test_frames_lie_over_their_seconds(data: PlotData) -> None:
    pytest.importorskip("matplotlib")
    frames = [
        Thumbnail((number + 0.5) * 16, np.full((90, 160, 3), 60 * number, np.uint8))
        for number in range(4)
    ]
    with drawn(replace(data, thumbnails=frames)) as figure:
        axes = strip(figure, "video")
        assert len(axes.images) == 4
        for frame, picture in zip(frames, axes.images, strict=True):
            left, right = picture.get_extent()[:2]
            assert (left + right) / 2 == pytest.approx(frame.time_s)
            assert (np.asarray(picture.get_array()) == frame.rgb[0, 0, 0]).all()
