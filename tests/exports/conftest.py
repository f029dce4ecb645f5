"""Stores whose rows tell their own time, so that time errors can be read off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from tspcli.exports import ExportOptions, ExportReport, ExportRequest, export_features
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, write_store
from tspcli.store.schema import sampling_attributes

DIM = 512
TIME, ROW, VIDEO = 0, 1, 2
"""Channels that hold the clip's centre in seconds, its number, and the video's."""


@dataclass(frozen=True)
class Clip:
    """A video to make: its key, its length, its rate."""

    key: str
    duration_s: float
    fps: float


ANET = (
    Clip("v_ABCDEFGHI24", 63.4, 24.0),
    Clip("v_ABCDEFGHI25", 120.52, 25.0),
    Clip("v_ABCDEF-2997", 31.03, 30000 / 1001),
    Clip("v__BCDEFGHI30", 745.2, 30.0),
    Clip("v_variable-01", 47.77, 23.713),  # a variable rate: its mean
    Clip("v_one.row.mp_", 1.1, 30.0),
    Clip("v_dots.in.it_", 200.0, 12.5),
)
THUMOS = (
    Clip("video_validation_0000311", 88.2, 25.0),
    Clip("video_validation_0000411", 70.35, 24.0),
    Clip("video_test_0000011", 79.1, 30.0),
    Clip("video_test_0000278", 40.04, 30000 / 1001),
    Clip("video_test_0000999", 33.3, 23.713),
    Clip("video_test_0000001", 1.1, 30.0),
)


def rows_of(number: int, duration_s: float, sampling: Sampling, dim: int = DIM) -> np.ndarray:
    n = max(1, sampling.n_clips(round(duration_s * 30)))
    rows = np.random.default_rng(number).normal(size=(n, dim)).astype(np.float32)
    rows[:, TIME] = [float(sampling.clip_center_s(i)) for i in range(n)]
    rows[:, ROW] = np.arange(n)
    rows[:, VIDEO] = number
    return rows


def make_store(
    path: Path,
    clips: Iterable[Clip],
    sampling: Sampling,
    *,
    dim: int = DIM,
    backbone: str = "r2plus1d_34",
) -> Path:
    def videos():
        for number, clip in enumerate(clips):
            yield (
                clip.key,
                rows_of(number, clip.duration_s, sampling, dim),
                {
                    "duration_s": clip.duration_s,
                    "source_fps": clip.fps,
                    "source_frames": round(clip.duration_s * clip.fps),
                    **sampling_attributes(sampling),
                    "warnings": "[]",
                },
            )

    encoder = {"backbone": backbone, "weights": "some", "weights_sha256": "0" * 64}
    write_store(path, videos(), StoreMetadata.build(sampling=sampling, encoder=encoder))
    return path


def make_foreign(path: Path, clips: Iterable[Clip], sampling: Sampling, dim: int = DIM) -> Path:
    """A file as the official merge script writes it: no attributes at all."""
    with h5py.File(path, "w") as file:
        for number, clip in enumerate(clips):
            rows = rows_of(number, clip.duration_s, sampling, dim)
            file.create_dataset(
                clip.key, data=rows, chunks=True, compression="gzip", compression_opts=9
            )
    return path


def anet_json(path: Path, clips: Iterable[Clip], extra: Iterable[str] = ()) -> Path:
    """ActivityNet's JSON: IDs without v_."""
    database = {}
    for number, clip in enumerate(clips):
        third = clip.duration_s / 3
        database[clip.key.removeprefix("v_")] = {
            "subset": "training" if number % 2 == 0 else "validation",
            "duration": clip.duration_s,
            "annotations": [
                {"segment": [third, 2 * third], "label": ["Archery", "Zumba", "Ballet"][number % 3]}
            ],
        }
    for name in extra:
        database[name] = {"subset": "testing", "duration": 10.0, "annotations": []}
    path.write_text(json.dumps({"version": "1.3", "database": database}))
    return path


def thumos_tables(folder: Path, clips: Iterable[Clip]) -> list[Path]:
    """G-TAD's tables: frames of the original video, rounded down."""
    header = "video,type,type_idx,start,end,startFrame,endFrame\n"
    lines = {"val": header, "test": header}
    for clip in clips:
        for start, end, label, number in (
            (0.0, clip.duration_s / 2, "Billiards", 12),
            (round(clip.duration_s * 0.6, 1), round(clip.duration_s * 0.95, 1), "Diving", 26),
            (0.1, 0.4, "Ambiguous", 0),
        ):
            start, end = round(start, 1), round(end, 1)
            frames = int(start * clip.fps + 1e-9), int(end * clip.fps + 1e-9)
            part = "val" if "validation" in clip.key else "test"
            lines[part] += f"{clip.key},{label},{number},{start},{end},{frames[0]},{frames[1]}\n"
    paths = []
    for part, text in lines.items():
        paths.append(folder / f"{part}_Annotation.csv")
        paths[-1].write_text(text)
    return paths


@pytest.fixture(scope="session")
def anet_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("anet") / "anet.h5", ANET, Sampling())


@pytest.fixture(scope="session")
def thumos_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("thumos") / "thumos.h5"
    return make_store(path, THUMOS, Sampling(stride=1))


@pytest.fixture(scope="session")
def anet_annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return anet_json(tmp_path_factory.mktemp("anno") / "activity_net.v1-3.min.json", ANET)


@pytest.fixture(scope="session")
def thumos_annotations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return thumos_tables(tmp_path_factory.mktemp("thumos_anno"), THUMOS)


Export = Callable[..., ExportReport]


@pytest.fixture
def export() -> Export:
    def run(
        stores: Path | Iterable[Path],
        target: str,
        out: Path,
        annotations: Iterable[Path] = (),
        *,
        sampling: Sampling | None = None,
        subset: str | None = None,
        label_ids: Path | None = None,
        **options: object,
    ) -> ExportReport:
        paths = (stores,) if isinstance(stores, Path) else tuple(stores)
        request = ExportRequest(
            paths, target, out, tuple(annotations), subset, ExportOptions(**options)
        )
        return export_features(request, sampling=sampling, label_ids=label_ids)

    return run
