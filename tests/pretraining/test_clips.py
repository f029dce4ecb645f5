"""Clips come from the right frames, by whichever way; the cache is exact or bounded, and whole."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.videos import make_video, read_number
from tests.pretraining import processes
from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tspcli.encoders import Preprocessing
from tspcli.errors import TrainingError
from tspcli.pretraining.clip_cache import (
    CachedClips,
    CacheSettings,
    build_cache,
    cache_file,
    check_space,
)
from tspcli.pretraining.clip_cache_file import CachedVideo, VideoClips, decode_frame, encode_frame
from tspcli.pretraining.data import RunInputs, load_data
from tspcli.pretraining.epoch_plan import BatchPlan, ClipRequest
from tspcli.pretraining.loader import BatchFeed, ClipBatch, ClipLoader
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec

SPEC = FrameSpec(ResizeSpec(height=48, width=64))
SAMPLING = Sampling(clip_length=8, stride=8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbered") / "numbered.mp4"
    make_video(path, fps=30, n_frames=151)
    return path


def numbers(clip: np.ndarray) -> list[int]:
    return [read_number(frame) for frame in clip]


@pytest.mark.parametrize("start", [0, 1, 13, 68])
def test_clip_shows_every_second_frame_from_its_sample_on(video: Path, start: int) -> None:
    clip = VideoClips([video], SAMPLING, SPEC).read(0, start)
    assert clip.shape == (8, 48, 64, 3)
    assert clip.dtype == np.uint8
    assert numbers(clip) == [2 * (start + j) for j in range(8)]


def test_odd_frame_rates_and_direct_sampling(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    make_video(path, fps=25, n_frames=60)
    direct = Sampling(frame_rate=Fraction(25), grid_rate=Fraction(25), clip_length=4, stride=4)
    assert numbers(VideoClips([path], direct, SPEC).read(0, 7)) == [7, 8, 9, 10]
    uneven = Sampling(frame_rate=Fraction(12), clip_length=4, stride=4)
    assert not uneven.is_regular
    with pytest.raises(TrainingError, match="12 does not"):
        CacheSettings(uneven, SPEC)


@pytest.mark.parametrize("codec", ["raw", "webp", "jpeg"])
def test_cache_gives_the_frames_of_the_video(video: Path, tmp_path: Path, codec: str) -> None:
    report = build_cache([video], tmp_path, CacheSettings(SAMPLING, SPEC, codec), workers=1)
    assert (report.built, report.failed) == (1, {})
    assert report.video_s == pytest.approx(76 / 15)
    cached = CachedClips([cache_file(tmp_path, video)], 8)
    straight = VideoClips([video], SAMPLING, SPEC)
    worst = 0
    for start in (0, 5, 31, 68):
        one, other = cached.read(0, start), straight.read(0, start)
        worst = max(worst, int(np.abs(one.astype(int) - other.astype(int)).max()))
        assert numbers(one) == numbers(other)
    if codec == "jpeg":
        assert 0 < worst <= report.max_error <= 32
    else:
        assert worst == report.max_error == 0
    # Past the end the last frame is repeated.
    assert numbers(cached.read(0, 72)) == [144, 146, 148, 150, 150, 150, 150, 150]
    assert numbers(cached.read(0, 83)) == [150] * 8


def test_jpeg_error_is_bounded_whatever_the_picture() -> None:
    rng = np.random.default_rng(0)
    for pixels in (
        rng.integers(0, 256, (48, 64, 3), dtype=np.uint8),  # the worst that there is
        np.tile(np.array([[0, 255]], dtype=np.uint8).repeat(3).reshape(1, 2, 3), (48, 32, 1)),
        np.full((48, 64, 3), 77, dtype=np.uint8),
    ):
        data, said = encode_frame(pixels, "jpeg")
        back = np.empty_like(pixels)
        decode_frame(data, "jpeg", back)
        assert int(np.abs(back.astype(int) - pixels.astype(int)).max()) == said <= 32


def test_cache_of_other_settings_is_refused(video: Path, tmp_path: Path) -> None:
    build_cache([video], tmp_path, CacheSettings(SAMPLING, SPEC, "jpeg"), workers=1)
    with pytest.raises(TrainingError, match="codec: jpeg, not raw"):
        build_cache([video], tmp_path, CacheSettings(SAMPLING, SPEC, "raw"), workers=1)
    other = FrameSpec(ResizeSpec(height=24, width=32))
    with pytest.raises(TrainingError, match="resize"):
        build_cache([video], tmp_path, CacheSettings(SAMPLING, other, "jpeg"), workers=1)


def numbers_per_frame(file: Path) -> int:
    cached = CachedVideo(file)
    cached.close()
    return math.prod(cached.shape)


def test_damaged_and_outdated_cache_files_are_built_again(video: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    folder = tmp_path / "cache"
    settings = CacheSettings(SAMPLING, SPEC, "raw")
    build_cache([copy], folder, settings, workers=1)
    file = cache_file(folder, copy)
    whole = file.read_bytes()
    assert build_cache([copy], folder, settings, workers=1).kept == 1
    table = struct.pack("<2Q", 0, numbers_per_frame(file))
    assert whole.count(table) == 1
    before_the_file = whole.replace(table, struct.pack("<q", -(1 << 60)) + table[8:])
    for broken in (whole[:-3], whole[:100], b"", before_the_file):
        file.write_bytes(broken)
        with pytest.raises(TrainingError) as raised:
            CachedClips([file], 8).read(0, 0)
        assert raised.value.data["path"] == file
        assert build_cache([copy], folder, settings, workers=1).built == 1
        assert file.read_bytes() == whole
    make_video(copy, fps=30, n_frames=80)
    assert build_cache([copy], folder, settings, workers=1).built == 1
    assert numbers(CachedClips([file], 8).read(0, 38)) == [76, 78] + [78] * 6


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_file_cut_short_behind_the_readers_back_is_noticed(
    video: Path, tmp_path: Path, codec: str
) -> None:
    build_cache([video], tmp_path, CacheSettings(SAMPLING, SPEC, codec), workers=1)
    file = cache_file(tmp_path, video)
    clips = CachedClips([file], 8)
    assert numbers(clips.read(0, 0))[0] == 0
    os.truncate(file, 1000)
    with pytest.raises(TrainingError, match="frames 30 to 37"):
        clips.read(0, 30)


def test_cache_that_the_disk_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CacheSettings(Sampling(), FrameSpec(ResizeSpec(height=128, width=171)))
    hour = 15 * 3600 * 128 * 171 * 3
    assert check_space(tmp_path, settings, 3600.0) == hour
    usage = shutil.disk_usage(tmp_path)._replace(free=hour - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(TrainingError, match=r"1.0 hours .* as raw take about 3.5 GB.*\(0.7 GB\)"):
        check_space(tmp_path, settings, 3600.0)


def test_undecodable_videos_are_reported(video: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    report = build_cache([broken, video], tmp_path / "c", CacheSettings(SAMPLING, SPEC), workers=1)
    assert list(report.failed) == ["broken.mp4"]
    assert report.built == 1


def _build_and_die(folder: Path, videos: list[Path]) -> None:
    def die(name: str, done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    build_cache(videos, folder, CacheSettings(SAMPLING, SPEC, "raw"), workers=1, on_video=die)


@pytest.mark.faults
def test_killed_build_goes_on(video: Path, tmp_path: Path) -> None:
    videos = []
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(video.read_bytes())
        videos.append(tmp_path / name)
    folder = tmp_path / "cache"
    assert processes.run(_build_and_die, folder, videos) == -signal.SIGKILL
    report = build_cache(videos, folder, CacheSettings(SAMPLING, SPEC, "raw"), workers=1)
    assert (report.kept, report.built) == (1, 2)
    files = [cache_file(folder, path).read_bytes() for path in videos]
    assert len(set(files)) == 1


# --- loading --------------------------------------------------------------------------------------


def small_data(small_set: SmallSet) -> tuple[ClipLoader, BatchPlan]:
    inputs = RunInputs((small_set.videos,), small_set.train, small_set.valid, small_set.labels)
    data = load_data(inputs, FAST)
    return data.loader("train", QUIET), BatchPlan(data.plans["train"], 5)


def test_views_are_those_of_the_preprocessing(small_set: SmallSet) -> None:
    loader, plan = small_data(small_set)
    look = loader.preprocessing
    flipped = set()
    for sample in range(8):
        request = plan.clips.request(1, sample)
        item = loader[request]
        assert item.pixels is not None
        frames = loader.reader.read(int(loader.table.video[request.segment]), request.start_sample)
        draw = look.draw(40, 52, tuple(request[3:6]))
        flipped.add(draw.flip)
        expected = look.augment_clip(torch.from_numpy(frames), draw)
        normalised = look.normalize(torch.from_numpy(item.pixels)).transpose(0, 1)
        assert torch.equal(normalised, expected)
    assert flipped == {False, True}
    request = ClipRequest(0, 0, 3, -1.0, -1.0, -1.0)
    item = loader[request]
    frames = loader.reader.read(int(loader.table.video[0]), 3)
    assert item.pixels is not None
    centre = look.center_clip(torch.from_numpy(frames))
    assert torch.equal(look.normalize(torch.from_numpy(item.pixels)).transpose(0, 1), centre)
    assert isinstance(look, Preprocessing)


def test_batches_do_not_depend_on_the_number_of_loader_processes(small_set: SmallSet) -> None:
    loader, plan = small_data(small_set)
    alone, several = BatchFeed(loader, 0), BatchFeed(loader, 2)
    try:
        for epoch, first in ((0, 0), (1, 2)):
            pairs = list(
                zip(alone(plan.epoch(epoch, first)), several(plan.epoch(epoch, first)), strict=True)
            )
            assert len(pairs) == plan.n_steps - first
            for one, other in pairs:
                assert one.names == other.names
                for name in ("pixels", "action", "region", "weight"):
                    assert torch.equal(getattr(one, name), getattr(other, name))
    finally:
        several.close()
    assert several.waited_s > 0


def test_pieces_of_a_batch_are_the_batch(small_set: SmallSet) -> None:
    loader, plan = small_data(small_set)
    batch = next(iter(BatchFeed(loader)(plan.epoch(0))))
    for count, sizes in ((1, [5]), (2, [2, 3]), (3, [1, 2, 2]), (9, [1] * 9)):
        pieces = batch.pieces(count)
        assert [len(piece) for piece in pieces] == sizes
        assert torch.equal(torch.cat([piece.pixels for piece in pieces])[:5], batch.pixels)
        assert [name for piece in pieces for name in piece.names][:5] == batch.names
        weights = torch.cat([piece.weight for piece in pieces])
        assert weights.tolist() == [1.0] * 5 + [0.0] * (len(weights) - 5)


def test_batches_are_pinned_by_the_thread_of_torchs_loader(
    small_set: SmallSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the training thread, while the device idles."""
    given: list[dict[str, Any]] = []

    class Recorded(torch.utils.data.DataLoader):  # type: ignore[type-arg]
        def __init__(self, *positional: Any, **named: Any) -> None:
            given.append(named)
            super().__init__(*positional, **named)

    pinned: list[ClipBatch] = []
    monkeypatch.setattr(torch.utils.data, "DataLoader", Recorded)
    monkeypatch.setattr(ClipBatch, "pin_memory", lambda batch: pinned.append(batch) or batch)
    loader, plan = small_data(small_set)
    feed = BatchFeed(loader, workers=1, pin=True)
    batch = next(iter(feed(plan.epoch(0))))
    feed.close()
    assert given[0]["pin_memory"] and not pinned
    # The method that torch looks for.
    assert torch.utils.data._utils.pin_memory.pin_memory(batch) is batch and len(pinned) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_clip_that_cannot_be_read_is_named(
    small_set: SmallSet, tmp_path: Path, workers: int
) -> None:
    loader, plan = small_data(small_set)
    assert isinstance(loader.reader, VideoClips)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    loader.reader.paths = [broken] * len(loader.reader.paths)
    feed = BatchFeed(loader, workers)
    batch = next(iter(feed(plan.epoch(0))))
    feed.close()
    assert [clip.clip for clip in batch.failed] == batch.names
    assert re.fullmatch(r"train_000\d\.mp4 at \d+\.\d\d s", batch.names[0])
    assert not batch.unreadable and not batch.weight.any()


def test_cache_remembers_what_made_it(video: Path, tmp_path: Path) -> None:
    build_cache([video], tmp_path, CacheSettings(SAMPLING, SPEC, "jpeg"), workers=1)
    about = json.loads((tmp_path / "cache.json").read_text())
    assert about["codec"] == "jpeg"
    assert about["resize"] == {"height": 48, "width": 64}
