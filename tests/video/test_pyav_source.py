"""PyAV's pictures: upright as ffmpeg shows them, converted whatever their colour matrix is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.builders.videos import MATRICES, make_video
from tspcli.video import open_source


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "matrix", [*MATRICES.values(), (-2, 0, 0, 3), (0.007, 1, 1, 0.007), (1, -0.008, -0.008, -1)]
)
def test_pictures_are_upright_as_those_of_ffmpeg(
    tmp_path: Path, suffix: str, matrix: tuple[float, float, float, float]
) -> None:
    path = make_video(tmp_path / f"v.{suffix}", n_frames=2, display_matrix=matrix)
    words = ["-i", str(path), "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    done = subprocess.run(["ffmpeg", "-v", "error", *words], capture_output=True, check=True)
    with open_source(path, "pyav") as source:
        ours = np.stack([frame.rgb().copy() for frame in source.frames()])
        assert source.warnings == []
    theirs = np.frombuffer(done.stdout, np.uint8).reshape(ours.shape)
    assert (ours == theirs).all()


def test_an_angle_between_quarter_turns_is_reported_and_not_applied(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", n_frames=2, display_matrix=(0.8, 0.6, -0.6, 0.8))
    with open_source(path, "pyav") as source:
        assert source.info.rotation_deg == 0
        assert any(warning.startswith("rotation: 37 ") for warning in source.warnings)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("number", [8, 10, 12, 14])
def test_a_colour_matrix_without_a_conversion_has_a_stated_fallback(
    tmp_path: Path, decoder: str, number: int
) -> None:
    path = make_video(
        tmp_path / "v.mp4",
        n_frames=4,
        options={"x264-params": f"colormatrix={X264_NAMES[number]}"},
    )
    plain = make_video(tmp_path / "plain.mp4", n_frames=4)
    with open_source(path, decoder) as source, open_source(plain, decoder) as reference:
        for ours, other in zip(source.frames(), reference.frames(), strict=True):
            assert np.abs(ours.rgb().astype(int) - other.rgb()).mean() < 3
        if decoder == "pyav":
            [warning] = source.warnings
            assert warning.startswith("colour: ")


X264_NAMES = {
    8: "YCgCo",
    10: "bt2020c",
    12: "chroma-derived-nc",
    14: "ICtCp",
}
