"""Clips from frames that arrive in chunks: those of the timeline, whatever the chunks."""

from __future__ import annotations

import gc
from collections import deque
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling.drawn import free_samplings
from tspcli.extraction.clip_assembler import Batcher, ClipAssembler, Clips, ClipSeries
from tspcli.sampling import Sampling
from tspcli.sampling.windows import NeededTicks


def needed_ticks(sampling: Sampling, n_ticks: int) -> list[int]:
    """What a decode worker ships: every tick that a clip of this or a longer video needs."""
    n_clips = sampling.n_clips(n_ticks) + sampling.clip_length + 2
    wanted = {tick for clip in range(n_clips) for tick in sampling.clip_ticks(clip)}
    return sorted(tick for tick in wanted if tick < n_ticks)


def assemble(
    sampling: Sampling,
    n_ticks: int,
    repeat: int,
    chunk: int,
    limit: int,
    pad: bool = True,
    as_series: bool = False,
    full_only: bool = False,
) -> list[list[int]]:
    """Clips as lists of ticks: a frame's only pixel is the first needed tick that it shows."""
    ticks = needed_ticks(sampling, n_ticks)
    frames = [ticks[i : i + repeat] for i in range(0, len(ticks), repeat)]
    assembler = ClipAssembler(sampling, as_series=as_series, full_only=full_only)
    clips: list[Clips] = []
    for start in range(0, len(frames), chunk):
        shown = frames[start : start + chunk]
        pixels = torch.tensor([float(t[0]) for t in shown]).reshape(-1, 1, 1, 1)
        clips.extend(assembler.add(pixels, shown, limit))
    clips.extend(assembler.finish(n_ticks, limit, pad=pad))
    assert all(len(some) <= limit for some in clips)
    if full_only:
        assert all(isinstance(some, ClipSeries) == (len(some) == limit) for some in clips)
    return [clip.flatten().int().tolist() for some in clips for clip in one_by_one(some)]


def one_by_one(clips: Clips) -> torch.Tensor:
    """(B, 3, T, h, w) of either form."""
    if not isinstance(clips, ClipSeries):
        return clips
    alone = [clips[i : i + 1].frames for i in range(len(clips))]
    return torch.stack(alone).transpose(1, 2)


samplings = st.builds(
    Sampling,
    frame_rate=st.sampled_from(
        [Fraction(15), Fraction(30), Fraction(10), Fraction(25), Fraction(8)]
    ),
    clip_length=st.integers(1, 20),
    stride=st.integers(1, 40),
    grid_rate=st.just(Fraction(30)),
)


@settings(max_examples=150, deadline=None)
@given(samplings, st.integers(1, 300), st.integers(1, 3), st.integers(1, 50), st.integers(1, 9))
def test_clips_show_the_frames_of_the_timeline(
    sampling: Sampling, n_ticks: int, repeat: int, chunk: int, limit: int
) -> None:
    ticks = needed_ticks(sampling, n_ticks)
    shown_by = {tick: ticks[i - i % repeat] for i, tick in enumerate(ticks)}
    expected = [
        [shown_by[tick] for tick in sampling.clip_ticks(clip)]
        for clip in range(sampling.n_clips(n_ticks))
    ]
    assert assemble(sampling, n_ticks, repeat, chunk, limit, pad=False) == expected
    if sampling.is_regular and sampling.stride <= sampling.clip_length:
        found = assemble(sampling, n_ticks, repeat, chunk, limit, pad=False, as_series=True)
        assert found == expected
        options = {"pad": False, "as_series": True, "full_only": True}
        assert assemble(sampling, n_ticks, repeat, chunk, limit, **options) == expected


@settings(max_examples=300, deadline=None)
@given(free_samplings(), st.integers(1, 120), st.integers(1, 4), st.integers(1, 9))
def test_any_sampling_shows_the_frames_of_its_clips(
    sampling: Sampling, n_ticks: int, per_frame: int, limit: int
) -> None:
    """Frames that show ``per_frame`` ticks each, of which only the needed ones arrive."""
    needed, assembler = NeededTicks(sampling), ClipAssembler(sampling)
    clips: list[Clips] = []
    for first in range(0, n_ticks, per_frame):
        shown = range(first, min(first + per_frame, n_ticks))
        if ticks := needed.among(shown, at_end=shown.stop == n_ticks):
            frame = torch.full((1, 1, 1, 1), float(1 + first // per_frame))
            clips.extend(assembler.add(frame, [ticks], limit))
    clips.extend(assembler.finish(n_ticks, limit, pad=False))
    expected = [
        [0 if tick < 0 else 1 + tick // per_frame for tick in sampling.clip_ticks(clip, n_ticks)]
        for clip in range(sampling.n_clips(n_ticks))
    ]
    assert [c.flatten().int().tolist() for some in clips for c in one_by_one(some)] == expected


@pytest.mark.parametrize("n_ticks", [1, 2, 17, 30])
def test_a_short_video_repeats_its_last_frame(n_ticks: int) -> None:
    ticks = list(range(0, n_ticks, 2))
    padded = ticks + [ticks[-1]] * (16 - len(ticks))
    assert assemble(Sampling(), n_ticks, 1, 5, 4) == [padded]
    assert assemble(Sampling(), n_ticks, 1, 5, 4, as_series=True) == [padded]
    assert assemble(Sampling(), n_ticks, 1, 5, 4, pad=False) == []


def test_memory_does_not_grow_with_the_video() -> None:
    sampling = Sampling(stride=1)
    assembler = ClipAssembler(sampling)
    before = held_bytes()
    for start in range(0, 20_000, 20):
        ticks = [(tick,) for tick in range(start, start + 20, 2)]
        deque(assembler.add(torch.zeros(10, 1, 100, 100), ticks, 4), maxlen=0)
        if start % 4_000 == 0:
            assert held_bytes() - before <= (10 + sampling.clip_length) * 100 * 100 * 4


def held_bytes() -> int:
    """The memory of all tensors that are alive."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor]
    # Other layouts, such as oneDNN's, have no storage that can be asked for.
    storages = [t.untyped_storage() for t in tensors if t.layout is torch.strided]
    return sum({storage.data_ptr(): storage.size() for storage in storages}.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 11), max_size=12), st.integers(1, 8))
def test_batches_have_one_size_and_lose_nothing(counts: list[int], size: int) -> None:
    batcher: Batcher[int] = Batcher(size)
    batches = []
    for owner, count in enumerate(counts):
        batches.extend(batcher.add(owner, torch.full((count, 1), float(owner))))
    assert all(len(batch.clips) == size for batch in batches)
    batches.extend(batcher.flush())
    assert [owner for batch in batches for owner in batch.clips.flatten().int().tolist()] == [
        owner for owner, count in enumerate(counts) for _ in range(count)
    ]
    for batch in batches:
        told = [owner for owner, count in batch.owners for _ in range(count)]
        assert told == batch.clips.flatten().int().tolist()
