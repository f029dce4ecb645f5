"""Threads that decode on a simulated GPU beside a pool's processes, and what they may fail at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.simulated_accelerator import Machine
from tests.builders.simulated_torch import simulated
from tests.builders.videos import read_number
from tests.video.fake_decoders import HARDWARE
from tests.video.pools import expected, make_pool_videos
from tests.video.stand_in_torchcodec import StandInTorchcodec, Surface, darker
from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling.yuv import YuvReading
from tspcli.video import DecodePool, Event, Failed, Finished, Frames, Restarted, VideoFile

SPEC = FrameSpec(ResizeSpec(48, 64), dtype="float32")
N_FRAMES = {"v0": 240, "v1": 150, "v2": 60, "v3": 9}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoFile]:
    return make_pool_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def torchcodec(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInTorchcodec]:
    stand_in = StandInTorchcodec()
    stand_in.install(monkeypatch)
    stand_in.on_device = True
    with simulated(Machine()):
        yield stand_in


def pool_of(videos: list[VideoFile], **options: Any) -> DecodePool:
    settings: dict[str, Any] = {
        "sampling": Sampling(), "spec": SPEC, "as_yuv": True, "devices": ["cuda:0"],
        "decoder": HARDWARE, "workers": 1, "timeout_s": 20.0, "chunk_bytes": 20 * 12 * 48 * 64,
    }  # fmt: skip
    return DecodePool(videos, **(settings | options))


def pictures(frames: Frames) -> np.ndarray:
    """The frames that come of what a pool gives, whichever worker decoded it."""
    assert frames.yuv is not None
    made = YuvFrames(YuvReading(frames.yuv, SPEC), torch.device("cpu"))
    if frames.on_device is None:
        return made.from_packed(torch.from_numpy(frames.pixels)).numpy()
    torch.accelerator.current_stream("cuda:0").wait_event(frames.on_device)
    return made.from_samples(frames.pixels.cpu()).numpy()


def consume(pool: DecodePool) -> tuple[dict[str, Event], dict[str, list[str]]]:
    """How each video ended, and why it was begun again; the right frames came of all."""
    kept: dict[str, list[tuple[int, int]]] = {}
    ends: dict[str, Event] = {}
    restarts: dict[str, list[str]] = {key: [] for key in N_FRAMES}
    with pool:
        for event in pool:
            key = event.job.key
            if isinstance(event, Frames):
                for ticks, picture in zip(event.ticks, pictures(event), strict=True):
                    kept[key] += [(tick, read_number(picture)) for tick in ticks]
                event.release()
            elif isinstance(event, (Finished, Failed)):
                ends[key] = event
            else:
                kept[key] = []
                if isinstance(event, Restarted):
                    assert event.decoder == "pyav"
                    restarts[key].append(event.why)
    for key, end in ends.items():
        if isinstance(end, Finished):
            assert kept[key] == expected(N_FRAMES[key])
    return ends, restarts


def decoders(ends: dict[str, Event]) -> dict[str, str]:
    return {key: end.decoder for key, end in ends.items() if isinstance(end, Finished)}


def test_threads_and_processes_share_the_videos(
    videos: list[VideoFile], torchcodec: StandInTorchcodec
) -> None:
    """Two threads are soon at work, and the process takes what they leave."""
    gone_on = threading.Event()

    def wait_for_the_process(name: str, number: int, surface: Surface) -> None:
        if number == 100:
            gone_on.wait(60)

    torchcodec.spoil = wait_for_the_process
    found = {}
    with pool_of(videos) as pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, Finished):
                found[event.job.key] = event.decoder
                if event.decoder == "pyav":
                    gone_on.set()
    assert set(found) == set(N_FRAMES)
    assert set(found.values()) == {"hardware", "pyav"}


def test_what_the_hardware_refuses_goes_to_the_processes(
    videos: list[VideoFile], torchcodec: StandInTorchcodec
) -> None:
    def spoil(name: str, number: int, surface: Surface) -> None:
        if "v1" in name and number == 10:
            darker(surface)
        if "v2" in name and number == 20:
            raise RuntimeError("CUDA error: the bitstream is broken")

    torchcodec.spoil = spoil
    # The process may be first at any of them; without it only the threads begin videos.
    ends, restarts = consume(pool_of(videos, workers=1))
    assert set(decoders(ends)) == set(N_FRAMES)
    found = decoders(ends)
    assert found["v0"] == "hardware"
    for key, words in (("v1", "1 samples of Y differ"), ("v2", "the bitstream is broken")):
        assert found[key] == "pyav"
        assert all(words in why for why in restarts[key])
    assert restarts["v1"]


def test_a_thread_that_hangs_is_given_up(
    videos: list[VideoFile], torchcodec: StandInTorchcodec
) -> None:
    over = threading.Event()

    def hang(name: str, number: int, surface: Surface) -> None:
        # Frames were given before; the gate looks at the first 60.
        if number == 100:
            over.wait(60)

    torchcodec.spoil = hang
    try:
        ends, restarts = consume(pool_of(videos[:2], workers=1, timeout_s=3.0, grace_s=0.2))
    finally:
        over.set()
    assert decoders(ends) == {"v0": "pyav", "v1": "pyav"}
    reasons = restarts["v0"] + restarts["v1"]
    assert reasons
    assert all("no frame within 3 s" in why for why in reasons)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_costs_no_video(
    videos: list[VideoFile], torchcodec: StandInTorchcodec
) -> None:
    def leave(name: str, number: int, surface: Surface) -> None:
        if number == 100:
            raise SystemExit

    torchcodec.spoil = leave
    ends, restarts = consume(pool_of(videos[:2]))
    assert decoders(ends) == {"v0": "pyav", "v1": "pyav"}
    assert any("the decode thread ended" in why for why in restarts["v0"] + restarts["v1"])


def test_a_file_that_is_not_there_fails_at_once(
    videos: list[VideoFile], torchcodec: StandInTorchcodec, tmp_path: Path
) -> None:
    missing = VideoFile(tmp_path / "missing.mp4", "v3")
    ends, restarts = consume(pool_of([missing]))
    end = ends["v3"]
    assert isinstance(end, Failed)
    assert end.error.reason == "missing"
    assert not restarts["v3"]


def test_no_more_than_the_slots_is_decoded_ahead(
    videos: list[VideoFile], torchcodec: StandInTorchcodec
) -> None:
    decoded: list[int] = []
    torchcodec.spoil = lambda name, number, surface: decoded.append(number)
    per_slot, n_slots = 10, 2
    pool = pool_of(videos[:1], slots=n_slots, chunk_bytes=per_slot * 12 * 48 * 64)
    with pool:
        held = list(islice(pool, 1 + n_slots))
        assert sum(isinstance(event, Frames) for event in held) == n_slots
        # Every second frame is sampled; one more may have been decoded for the next slot.
        assert max(decoded) <= 2 * per_slot * n_slots + 60
