"""A video whose rate really varies, from its file to the readers: each row at the right second."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders.videos import make_video, read_number
from tests.exports import readers
from tests.exports.conftest import DIM, ROW, TIME, VIDEO, Export
from tests.exports.test_contracts import error_of
from tspcli.encoders import Encoder, load_encoder
from tspcli.extraction import extract
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.store import open_store

KEY = "v_varies-rate"
BASE = Fraction(1, 900)
# From 10 frames a second to 50, to uneven ones, to 30: the mean rate is right nowhere.
STEPS = [90] * 100 + [18] * 200 + [60, 84, 72] * 40 + [30] * 150
TIMES = [sum(STEPS[:k]) for k in range(len(STEPS))]
DURATION_S = float(sum(STEPS) * BASE)
FRAME_S = 0.1
"""The longest frame, which is how far what is shown can lag behind the clock."""


class Telling(Encoder):
    """An encoder whose rows tell when their clip's frames are shown, as the pictures say it."""

    @property
    def frame_spec(self) -> FrameSpec:
        return FrameSpec(ResizeSpec(48, 64))

    def prepare(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.permute(0, 3, 1, 2).float()

    def encode_async(self, clips: torch.Tensor) -> Callable[[], torch.Tensor]:
        rows = torch.zeros(len(clips), DIM)
        for row, clip in zip(rows, clips, strict=True):
            pictures = clip.permute(1, 2, 3, 0).numpy()
            shown_s = [float(TIMES[read_number(rgb)] * BASE) for rgb in pictures]
            # A clip's centre is half a sample after the mean of its samples' times.
            row[TIME] = float(np.mean(shown_s)) + 0.5 / 15
        return lambda: rows


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("varied")
    # The container takes the last frame to last as long as the one before it.
    make_video(folder / f"{KEY}.mp4", fps=30, times=TIMES, time_base=BASE)
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    encoder.__class__, encoder.feature_dim = Telling, DIM
    extract([folder / f"{KEY}.mp4"], folder / "s.h5", encoder=encoder)
    database = {KEY[2:]: {"subset": "training", "duration": DURATION_S, "annotations": [
        {"segment": [5.0, 20.0], "label": "Zumba"}]}}  # fmt: skip
    (folder / "a.json").write_text(json.dumps({"database": database}))
    return folder


def test_the_mean_rate_would_be_wrong(varied: Path) -> None:
    """Were frames taken to be evenly spaced, rows would be seconds off: these tests can fail."""
    with open_store(varied / "s.h5") as store:
        video = store[KEY]
        assert video.duration_s == pytest.approx(DURATION_S, abs=FRAME_S)
        assert video.source_fps == pytest.approx(len(TIMES) / DURATION_S, rel=0.02)
        error = np.abs(video.rows[:, TIME] - video.center_s)
        assert error.max() < FRAME_S
        frames = np.interp(video.center_s, [float(t * BASE) for t in TIMES], range(len(TIMES)))
        assert np.abs(frames / video.source_fps - video.center_s).max() > 3


def gtad_anet(out: Path) -> readers.Seen:
    infos = json.loads((out / "annotations" / "anet_anno_action.json").read_text())
    return readers.gtad_anet(out / "features.hdf5", infos[KEY], KEY)


def bmn(out: Path) -> readers.Seen:
    infos = json.loads((out / "annotations" / "anet_anno_action.json").read_text())
    return readers.bmn(f"{out}/", infos[KEY], KEY)


def mmaction2(out: Path) -> readers.Seen:
    infos = json.loads((out / "annotations" / "anet_anno_train.json").read_text())
    return readers.mmaction2(f"{out}/csv", infos[KEY], KEY)


def bmt(out: Path) -> readers.Seen:
    rows = readers.bmt(str(out), KEY)
    return rows, readers.bmt_proposals(rows, 16, 15, 800)


def actionformer(out: Path) -> readers.Seen:
    config = readers.actionformer_config(out)["dataset"]
    return readers.actionformer_anet(config, {}, KEY[2:])


def opentad_pad(out: Path) -> readers.Seen:
    return readers.opentad_pad(str(out), "v_", KEY[2:], 16, 8, 15)


def opentad_resize(out: Path) -> readers.Seen:
    return readers.opentad_resize(str(out), "v_", KEY[2:], DURATION_S, 192)


def pdvc(out: Path) -> readers.Seen:
    return readers.pdvc(str(out), KEY, DURATION_S)


def official(out: Path) -> readers.Seen:
    return readers.official(out / "features.h5", KEY, 16)


def gtad_thumos(out: Path) -> readers.Seen:
    # Row i stands for frame i at the rate in which the annotation counts: its mean.
    rate = json.loads((out / "export.json").read_text())["n_rows"] / DURATION_S
    return readers.gtad_thumos(str(out), f"test_{KEY}", rate)


CENTERS = {"resize": "centers"}
CASES = [
    ("official", official, {}),
    ("gtad-anet", gtad_anet, {}),
    ("bmn", bmn, {}),
    ("bmn", bmn, CENTERS),
    ("mmaction2", mmaction2, CENTERS),
    ("bmt", bmt, {}),
    ("actionformer", actionformer, {}),
    ("opentad", opentad_pad, {}),
    ("opentad", opentad_resize, {"length": 192, **CENTERS}),
    ("pdvc", pdvc, {"length": 100, **CENTERS}),
    ("gtad-thumos", gtad_thumos, {"name_prefix": "add:test_"}),
]


@pytest.mark.parametrize(
    ("target", "read", "options"), CASES, ids=[f"{t}-{r.__name__}-{len(o)}" for t, r, o in CASES]
)
def test_readers_find_rows_at_their_seconds(
    varied: Path, export: Export, tmp_path: Path, target: str, read: Callable, options: dict
) -> None:
    annotations = [] if target == "gtad-thumos" else [varied / "a.json"]
    export(varied / "s.h5", target, tmp_path / "out", annotations, **options)
    rows, assigned = read(tmp_path / "out")
    assert len(rows) > 20 and (rows[:, [ROW, VIDEO]] == 0).all()
    with open_store(varied / "s.h5") as store:
        _, inside = error_of(rows, assigned, store[KEY].center_s)
    assert inside < FRAME_S + 0.02
