"""Where hardware decoding happens, and what is said where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders.videos import make_video
from tests.video.pools import make_pool_videos, pool_of, usable
from tests.video.stand_in_torchcodec import StandInTorchcodec
from tspcli.encoders import load_encoder
from tspcli.errors import DependencyError, VideoError
from tspcli.extraction import ExtractConfig, ExtractReport, Reporter
from tspcli.extraction import feeder as decoding
from tspcli.extraction.engine import Engine
from tspcli.extraction.task import RunLog
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DecodePool, Finished, Frames, Opened, Restarted
from tspcli.video.decoders import open_with
from tspcli.video.decoders.pyav_source import PyavSource


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hardware") / "v.mp4"
    return make_video(path, fps=30, n_frames=70, width=96, height=64)


@pytest.fixture
def torchcodec(monkeypatch: pytest.MonkeyPatch) -> StandInTorchcodec:
    stand_in = StandInTorchcodec()
    stand_in.install(monkeypatch)
    return stand_in


@pytest.mark.parametrize("device", [None, "cuda:1"])
def test_a_video_is_decoded_on_the_device_that_was_named(
    video: Path, torchcodec: StandInTorchcodec, device: str | None
) -> None:
    spec = FrameSpec(ResizeSpec(32, 48), dtype="float32")
    with (
        open_with(video, "torchcodec-cuda", device=device) as source,
        PyavSource(str(video)) as trusted,
    ):
        assert torchcodec.devices == [device or "cuda"]
        for found, expected in zip(source.frames(), trusted.frames(), strict=True):
            assert np.abs(found.scaled(spec) - expected.scaled(spec)).max() == 0


def test_no_other_decoder_is_told_of_a_device(video: Path, torchcodec: StandInTorchcodec) -> None:
    for name in ("pyav", "torchcodec"):
        open_with(video, name, device="cuda:1").close()
    assert torchcodec.devices == ["cpu"]


def test_decode_processes_are_distributed_among_the_devices(tmp_path: Path) -> None:
    videos = make_pool_videos(tmp_path)
    names = ("cuda:0", "cuda:1", "cuda:0")
    small = {"slots": 1, "chunk_bytes": 2 * 48 * 64 * 3}
    held: list[Frames] = []
    opened: set[str] = set()
    used: list[str] = []
    with pool_of(videos, workers=4, decoder="on_a_gpu", devices=names, **small) as pool:
        for event in pool:
            if isinstance(event, Frames):
                held.append(event)
            elif isinstance(event, Opened):
                opened.add(event.job.key)
            elif isinstance(event, Finished):
                used += event.warnings
            # Without a slot no worker can finish its video and take another one's.
            if len(opened) == len(videos):
                while held:
                    held.pop().release()
    assert sorted(used) == 2 * ["decoded on cuda:0"] + 2 * ["decoded on cuda:1"]


class PoolAsked(Exception):
    """A pool was to be made; the message names its devices, and whether they scale."""


@pytest.fixture
def no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(*_: object, devices: Sequence[str], as_yuv: bool, **__: object) -> DecodePool:
        raise PoolAsked(f"{','.join(devices)} {as_yuv}")

    monkeypatch.setattr(decoding, "DecodePool", pool)


@pytest.mark.parametrize(("device", "told"), [("cuda:1", "cuda:1 True"), ("cpu", " False")])
def test_a_run_decodes_and_scales_where_it_encodes(no_pool: None, device: str, told: str) -> None:
    encoder = load_encoder("random", backbone="tiny", device="cpu")
    encoder.device = torch.device(device)
    log = RunLog(ExtractReport("", {}), Reporter())
    run = Engine(encoder, encoder.sampling, ExtractConfig(), lambda file: None, log)  # type: ignore[arg-type, return-value]  # nothing is written
    with pytest.raises(PoolAsked, match=f"^{told}$"):
        run.run([])


def test_a_torchcodec_without_cuda_is_named_once(
    video: Path, torchcodec: StandInTorchcodec
) -> None:
    torchcodec.refusal = RuntimeError("Unsupported device: cuda:1")
    for _ in range(2):
        with pytest.raises(DependencyError, match=r"cuda:1.*Unsupported device"):
            open_with(video, "torchcodec-cuda", device="cuda:1")
    # The second video is not tried: it would be scanned in vain.
    assert torchcodec.devices == ["cuda:1", "cpu"]


def test_a_driver_without_nvdec_is_named_once(video: Path, torchcodec: StandInTorchcodec) -> None:
    torchcodec.fallback = "[CUDA] Fallback status: Falling back due to: NVcuvid unavailable"
    for _ in range(2):
        with pytest.raises(DependencyError, match="NVcuvid unavailable"):
            open_with(video, "torchcodec-cuda")
    assert torchcodec.devices == ["cuda"]


def test_a_codec_that_nvdec_does_not_know_is_the_video_s_own_matter(
    video: Path, torchcodec: StandInTorchcodec
) -> None:
    torchcodec.fallback = "[CUDA] Fallback status: Falling back due to: Video not supported"
    with pytest.raises(VideoError, match=r"h264 .*96 x 64") as caught:
        open_with(video, "torchcodec-cuda")
    assert caught.value.reason == "unsupported"
    torchcodec.fallback = None
    open_with(video, "torchcodec-cuda").close()


def test_a_file_that_nobody_opens_is_no_fault_of_the_gpu(
    video: Path, torchcodec: StandInTorchcodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("moov atom not found")

    monkeypatch.setattr(torchcodec, "open", refuse)
    torchcodec.install(monkeypatch)
    with pytest.raises(VideoError, match="moov atom") as caught:
        open_with(video, "torchcodec-cuda")
    assert caught.value.reason == "not-a-video"


@pytest.mark.gpu
def test_decode_processes_use_a_gpu_within_their_memory_limit(tmp_path: Path) -> None:
    usable("torchcodec-cuda")
    spec = FrameSpec(ResizeSpec(32, 48), dtype="float32")
    last = f"cuda:{torch.cuda.device_count() - 1}"
    options = {"decoder": "torchcodec-cuda", "devices": [last], "spec": spec, "timeout_s": 120.0}
    ended = []
    with pool_of(make_pool_videos(tmp_path), **options) as pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, (Finished, Restarted)):
                ended.append(getattr(event, "why", event.decoder))
    assert ended == 4 * ["torchcodec-cuda"]
