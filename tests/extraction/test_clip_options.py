"""Clips of native frames, spread or centred, from the file to the store: frames and times."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.refusals import refused
from tests.builders.videos import make_video, read_number
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import ExportError, UsageError
from tspcli.exports.export import export_features
from tspcli.exports.export_options import ExportOptions, ExportRequest
from tspcli.extraction import ExtractConfig, extract
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.store import open_store
from tspcli.store.gvf import gvf_from_store
from tspcli.store.merge import merge_stores

N_FRAMES = 45
WIDTH = 16
VARIED = [sum([90] * (k // 2) + [18] * (k - k // 2)) for k in range(N_FRAMES)]
BASE = Fraction(1, 900)


class Numbers(Encoder):
    """An encoder whose rows are the numbers of the frames of their clips; -1 for zeros."""

    @property
    def frame_spec(self) -> FrameSpec:
        return FrameSpec(ResizeSpec(48, 64))

    def prepare(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.permute(0, 3, 1, 2).float()

    def supports_series(self, sampling: Sampling) -> bool:
        return False

    def encode_async(self, clips: torch.Tensor) -> Callable[[], torch.Tensor]:
        rows = torch.full((len(clips), WIDTH), -2.0)
        for row, clip in zip(rows, clips, strict=True):
            for j, rgb in enumerate(clip.permute(1, 2, 3, 0).numpy()):
                row[j] = read_number(rgb) if rgb.any() else -1
        return lambda: rows


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    encoder.__class__, encoder.feature_dim = Numbers, WIDTH
    return encoder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    make_video(folder / "at25.mp4", n_frames=N_FRAMES, fps=25)
    make_video(folder / "at30.mkv", n_frames=N_FRAMES, fps=30)
    make_video(folder / "varies.mp4", fps=30, times=VARIED, time_base=BASE)
    return folder


CHOICES: dict[str, dict[str, Any]] = {
    "sliding": {"clip_length": 16, "stride": 4},
    "centred": {
        "clip_length": 16, "stride": 4, "phase": 2, "align": "center", "tail": "repeat",
    },
    "apart": {
        "clip_length": 8, "interval": 4, "stride": 8, "phase": 4, "align": "center", "tail": "zero",
    },
    "flushed": {"clip_length": 16, "stride": 16, "tail": "flush"},
    "spread": {"clip_length": 4, "window": 20, "stride": 20},
    "sparse": {"clip_length": 1, "stride": 16, "phase": 8, "tail": "repeat"},
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_rows_show_the_frames_that_the_sampling_says(
    name: str, videos: Path, encoder: Encoder, tmp_path: Path
) -> None:
    config = ExtractConfig(frame_rate="native", **CHOICES[name])
    sampling = config.resolve_sampling(encoder.sampling)
    report = extract(videos, tmp_path / "s.h5", encoder=encoder, config=config)
    assert not report.failed
    with open_store(tmp_path / "s.h5") as store:
        assert store.metadata.sampling == sampling
        for key, video in store.items():
            assert video.n_rows == sampling.n_clips(N_FRAMES) > 0
            for i, row in enumerate(video.rows[:, : sampling.clip_length]):
                assert row.astype(int).tolist() == list(sampling.clip_ticks(i, N_FRAMES))
            check_times(key, video, sampling)


def check_times(key: str, video: Any, sampling: Sampling) -> None:
    """Starts and ends are the times of frames, and beyond the video at its mean rate."""
    rate = {"at25": 25, "at30": 30}.get(key)
    shown_s = np.array([float(time * BASE) for time in VARIED])
    for i in range(video.n_rows):
        first, end = (sampling.base(i, N_FRAMES) + edge for edge in sampling.window)
        if rate is not None:
            assert video.start_s[i] == pytest.approx(first / rate, abs=1e-4)
            assert video.end_s[i] == pytest.approx(end / rate, abs=1e-4)
        elif first >= 0 and end < N_FRAMES:
            assert video.start_s[i] == pytest.approx(shown_s[first], abs=1e-4)
            assert video.end_s[i] == pytest.approx(shown_s[end], abs=1e-4)
    np.testing.assert_allclose(video.center_s, (video.start_s + video.end_s) / 2)
    assert video.has_series == (rate is not None and sampling.tail != "flush")


@pytest.fixture(scope="module")
def store(videos: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.h5"
    config = ExtractConfig(frame_rate="native", **CHOICES["sliding"])
    extract(videos, path, encoder=encoder, config=config)
    return path


def test_each_video_has_its_own_rate(store: Path) -> None:
    with open_store(store) as opened:
        rates = {key: float(video.sampling.frame_rate) for key, video in opened.items()}
        assert rates["at25"] == 25 and rates["at30"] == 30
        assert rates["varies"] == pytest.approx(opened["varies"].source_fps, rel=0.05)


def test_times_of_frames_survive_merging_and_not_pooling(store: Path, tmp_path: Path) -> None:
    merge_stores([store], tmp_path / "merged.h5")
    with open_store(store) as before, open_store(tmp_path / "merged.h5") as after:
        for key in before:
            np.testing.assert_array_equal(before[key].center_s, after[key].center_s)
            assert after[key].verify()
    assert set(gvf_from_store(store, tmp_path / "g.h5").vectors) == {"at25", "at30", "varies"}


def export(store: Path, out: Path, target: str, **options: Any) -> None:
    export_features(ExportRequest((store,), target, out, options=ExportOptions(**options)))


def test_actionformer_gets_the_rate_of_each_video(
    videos: Path, encoder: Encoder, tmp_path: Path
) -> None:
    config = ExtractConfig(frame_rate="native", **CHOICES["centred"])
    even = [videos / "at25.mp4", videos / "at30.mkv"]
    extract(even, tmp_path / "s.h5", encoder=encoder, config=config)
    actions = [{"segment": [0.2, 1.0], "label": "Diving"}]
    database = {
        key: {"subset": "training", "duration": 45 / rate, "annotations": actions}
        for key, rate in (("at25", 25), ("at30", 30))
    }
    (tmp_path / "a.json").write_text(json.dumps({"database": database}))
    request = ExportRequest(
        (tmp_path / "s.h5",),
        "actionformer",
        tmp_path / "out",
        (tmp_path / "a.json",),
        options=ExportOptions(data_set="thumos14"),
    )
    report = export_features(request)
    assert all(error.worst_s < 1e-6 for error in report.time_errors.values())
    [path] = (tmp_path / "out").rglob("thumos14.json")
    written = json.loads(path.read_text())["database"]
    assert {key: video["fps"] for key, video in written.items()} == {"at25": 25, "at30": 30}
    settings = "".join(p.read_text() for p in (tmp_path / "out").rglob("actionformer.yaml"))
    assert "default_fps: ~" in settings and "feat_stride: 4" in settings
    # Row i is centred on frame 2 + 4 i: (4 i + num_frames / 2) / fps.
    assert "num_frames: 4" in settings
    with refused(ExportError):
        export(tmp_path / "s.h5", tmp_path / "official", "official")


@pytest.mark.parametrize("target", ["official", "actionformer", "npy", "opentad"])
def test_a_reader_of_even_rows_gets_no_uneven_ones(
    target: str, store: Path, tmp_path: Path
) -> None:
    with refused(ExportError, video="varies"):
        export(store, tmp_path / "out", target)


def test_rows_of_a_variable_rate_are_resized_in_time(store: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "out", "npy", length=7, resize="centers")
    rows = np.load(tmp_path / "out" / "varies.npy")
    with open_store(store) as opened:
        video = opened["varies"]
        times_s = (np.arange(7) + 0.5) * video.duration_s / 7
        expected = np.interp(times_s, video.center_s, video.rows[:, 0])
    np.testing.assert_allclose(rows[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "choice"),
    [
        ("window", {"window": "0"}),
        ("window", {"window": "2s", "frame_rate": "native"}),
        ("interval", {"window": 20, "interval": 2}),
        ("grid_rate", {"frame_rate": "native", "grid_rate": 30}),
        ("tail", {"align": "center"}),
        ("phase", {"phase": -1}),
        ("clip_length", {"sampling": Sampling(offsets=tuple(range(0, 32, 2))), "clip_length": 8}),
    ],
)
def test_senseless_clips_are_refused(option: str, choice: dict[str, Any]) -> None:
    with refused(UsageError, option=option):
        ExtractConfig(**choice).resolve_sampling(Sampling())


def test_a_window_in_seconds_has_frames_at_the_rate() -> None:
    config = ExtractConfig(clip_length=4, window="3.2s")
    assert config.resolve_sampling(Sampling()).window == (0, 48)
    assert config.resolve_sampling(Sampling()).picks == (0, 15, 31, 47)
