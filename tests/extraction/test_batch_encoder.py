"""Batches: halved when memory runs out, filled up where that pays, in flight; and their memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders.refusals import refused
from tests.builders.videos import make_video
from tspcli.encoders import Encoder
from tspcli.encoders.backbones import backbone_spec
from tspcli.errors import TspError, UsageError
from tspcli.extraction import batch_encoder as encoding
from tspcli.extraction import extract
from tspcli.extraction.batch_encoder import default_batch, require_memory
from tspcli.extraction.clip_assembler import ClipAssembler
from tspcli.extraction.extract_config import EncoderInfo
from tspcli.sampling import Sampling
from tspcli.store import open_store


@pytest.mark.parametrize(
    ("stride", "method", "error"),
    [
        (5, "encode_async", torch.OutOfMemoryError("CUDA out of memory.")),
        (5, "encode_async", RuntimeError("CUDA error: out of memory")),
        (2, "encode_series_async", RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
    ],
    ids=["torch", "CUDA", "cuDNN, a series"],
)
def test_out_of_memory_halves_the_batch(
    sources: Path,
    encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stride: int,
    method: str,
    error: Exception,
) -> None:
    extract(sources / "a.mp4", tmp_path / "plain.h5", encoder=encoder, stride=stride)
    real = getattr(encoder, method)
    sizes: list[int] = []

    def small_device(clips: torch.Tensor, *sampling: Sampling) -> object:
        # A series of n clips has (n - 1) * stride + 16 frames.
        count = (len(clips) - 16) // stride + 1 if sampling else len(clips)
        if count > 2:
            raise error
        sizes.append(count)
        return real(clips, *sampling)

    monkeypatch.setattr(encoder, method, small_device)
    report = extract(
        sources / "a.mp4", tmp_path / "small.h5", encoder=encoder, stride=stride, batch_size=8
    )
    assert max(sizes) == 2 and any("batches of 2" in note for note in report.notes)
    with open_store(tmp_path / "plain.h5") as a, open_store(tmp_path / "small.h5") as b:
        np.testing.assert_allclose(a["a"].rows, b["a"].rows, rtol=1e-4, atol=1e-5)


def test_no_memory_for_gathering_is_a_clear_error(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(ClipAssembler, "finish", exhausted)
        with pytest.raises(TspError, match=r"20\.00 GiB") as caught:
            extract(sources, tmp_path / "f.h5", encoder=encoder)
        assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert len(extract(sources, tmp_path / "f.h5", encoder=encoder).failed) == 0


def test_batches_in_flight_change_nothing(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(sources, tmp_path / "at_once.h5", encoder=encoder, stride=8, batch_size=3)
    monkeypatch.setitem(encoding.IN_FLIGHT, "cpu", 2)
    report = extract(sources, tmp_path / "later.h5", encoder=encoder, stride=8, batch_size=3)
    assert len(report.with_status("done")) == 3
    with open_store(tmp_path / "at_once.h5") as a, open_store(tmp_path / "later.h5") as b:
        assert list(a) == list(b)
        for key in a:
            np.testing.assert_array_equal(a[key].rows, b[key].rows)


def test_batches_are_filled_up_where_a_size_of_its_own_costs_more(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(sources, tmp_path / "as_they_come.h5", encoder=encoder, stride=8, batch_size=5)
    monkeypatch.setattr(Encoder, "wants_full_batches", True)
    sizes: list[int] = []
    real = encoder.encode_async
    monkeypatch.setattr(
        encoder, "encode_async", lambda clips: (sizes.append(len(clips)), real(clips))[1]
    )
    report = extract(sources, tmp_path / "full.h5", encoder=encoder, stride=8, batch_size=5)
    assert report.n_clips % 5 and set(sizes) == {5}
    with open_store(tmp_path / "as_they_come.h5") as a, open_store(tmp_path / "full.h5") as b:
        for key in a:
            np.testing.assert_allclose(a[key].rows, b[key].rows, rtol=1e-4, atol=1e-5)


def test_a_filled_batch_that_is_too_large_is_halved_to_what_fits(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(sources / "short.mp4", tmp_path / "plain.h5", encoder=encoder)
    monkeypatch.setattr(Encoder, "wants_full_batches", True)
    sizes: list[int] = []
    real = encoder.encode_async

    def small_device(clips: torch.Tensor) -> object:
        sizes.append(len(clips))
        if len(clips) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(clips)

    monkeypatch.setattr(encoder, "encode_async", small_device)
    report = extract(sources / "short.mp4", tmp_path / "f.h5", encoder=encoder, batch_size=8)
    assert report.n_clips == 1 and sizes == [8, 4, 2]
    assert report.notes[-1].endswith("batches of 2.")
    with open_store(tmp_path / "plain.h5") as a, open_store(tmp_path / "f.h5") as b:
        np.testing.assert_allclose(a["short"].rows, b["short"].rows, rtol=1e-4, atol=1e-5)


def test_series_too_short_to_pay_are_clips(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(frames: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        raise AssertionError("a series")

    monkeypatch.setattr(encoder, "encode_series_async", refuse)
    report = extract(sources / "a.mp4", tmp_path / "f.h5", encoder=encoder, stride=1, batch_size=2)
    assert len(report.with_status("done")) == 1


def test_clips_that_no_memory_holds_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", n_frames=40)
    with refused(UsageError, value=1):
        extract(
            tmp_path / "v.mp4", tmp_path / "f.h5", encoder=encoder, clip_length=10**9, batch_size=1
        )
    assert not (tmp_path / "f.h5").exists()


def test_the_bound_is_that_of_one_batch(encoder: Encoder) -> None:
    info = EncoderInfo.of(encoder)
    height, width = info.frame_spec.output_shape(256, 341)
    one_clip = 8 * 16 * height * width * 3 * 4
    require_memory(Sampling(), info, 2, available=2 * one_clip)
    with refused(UsageError, value=3):
        require_memory(Sampling(), info, 3, available=2 * one_clip)
    with refused(UsageError, value=4):
        require_memory(Sampling(), info, None, available=2 * one_clip)


FAULTS = """\
import contextlib, resource, sys
import torch
from tspcli.extraction.batch_encoder import kept_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

torch.ones(16 << 20)
for way in sys.argv[1:]:
    began = resident()
    with kept_memory() if way == "kept" else contextlib.nullcontext():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(40):
            torch.ones(16 << 20)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        held = resident() - began
    print(faults, held, resident() - began)
"""
_PAGES = 40 * 16_384
"""What forty tensors of 64 MiB have."""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")


def measure(*ways: str, **environment: str) -> list[tuple[int, ...]]:
    """Pages that forty tensors take from the system, MiB held beyond those before, then and after.

    Args:
        ways: ``kept`` or ``plain``, with the context or without, one after the other.
        **environment: Variables to set.
    """
    result = subprocess.run(
        [sys.executable, "-c", FAULTS, *ways],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return [tuple(map(int, line.split())) for line in result.stdout.splitlines()]


@glibc
def test_pages_are_taken_once_and_given_back() -> None:
    plain, (faults, held, left) = measure("plain", "kept")
    assert plain[0] > 0.9 * _PAGES
    # A kept block that something small has nibbled at is too short for the next tensor: it happens
    # to a few of the forty.
    assert faults < 0.25 * _PAGES
    assert held >= 60
    assert left < 30


@glibc
def test_the_users_own_tuning_wins() -> None:
    [(faults, *_)] = measure("kept", MALLOC_MMAP_THRESHOLD_="1000000")
    assert faults > 0.9 * _PAGES


@pytest.mark.parametrize(
    ("backbone", "clips"),
    [("r2plus1d_34", 64), ("i3d", 16), ("mvit_v2_s", 16), ("swin3d_b", 8), ("s3d", 2)],
)
def test_a_gpus_batch_has_so_many_pixels(
    monkeypatch: pytest.MonkeyPatch, backbone: str, clips: int
) -> None:
    spec = backbone_spec(backbone)
    frames = spec.preprocessing.frame_spec("float32")
    gpu, half = torch.device("cuda", 0), torch.float16

    def full(device: torch.device) -> tuple[int, int]:
        raise RuntimeError("CUDA error: out of memory")

    for answer in (full, lambda device: (80 << 30, 80 << 30)):
        monkeypatch.setattr(torch.accelerator, "get_memory_info", answer)
        assert default_batch(gpu, half, spec.sampling, frames) == clips
        assert default_batch(torch.device("cpu"), half, spec.sampling, frames) == 4
        assert default_batch(gpu, half, Sampling(clip_length=100_000), frames) == 1


@pytest.mark.parametrize(
    ("free", "dtype", "clips"),
    [
        (8 << 30, torch.float16, 64),
        (2 << 30, torch.float16, 26),
        (2 << 30, torch.float32, 13),
        (1 << 20, torch.float16, 1),
    ],
)
def test_a_gpus_batch_takes_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, dtype: torch.dtype, clips: int
) -> None:
    """By count: 100 activations of a pixel of 16 x 112 x 112."""
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (free, 80 << 30))
    spec = backbone_spec("r2plus1d_34")
    frames = spec.preprocessing.frame_spec("float32")
    assert default_batch(torch.device("cuda", 0), dtype, spec.sampling, frames) == clips
