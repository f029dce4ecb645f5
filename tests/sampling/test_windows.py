"""Ticks and times of clips as arrays agree with those of each clip."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.drawn import free_samplings, samplings
from tspcli.sampling import Sampling
from tspcli.sampling.windows import (
    NeededTicks,
    rate_or_times,
    row_times_s,
    ticks_of_clips,
    ticks_of_series,
)


@given(samplings(), st.integers(0, 400))
def test_needed_ticks_are_the_union_of_the_clips(sampling: Sampling, start: int) -> None:
    span = range(start, start + 60)
    wanted = set()
    clip = 0
    while sampling.clip_ticks(clip)[0] < span.stop:
        wanted.update(sampling.clip_ticks(clip))
        clip += 1
    assert NeededTicks(sampling).among(span) == tuple(sorted(wanted & set(span)))


@given(free_samplings(), st.integers(1, 200))
def test_needed_ticks_hold_every_clip_of_a_video(sampling: Sampling, n_ticks: int) -> None:
    needed = NeededTicks(sampling).among(range(n_ticks), at_end=True)
    assert list(needed) == sorted(set(needed)) and set(needed) <= set(range(n_ticks))
    for clip in range(sampling.n_clips(n_ticks)):
        assert set(sampling.clip_ticks(clip, n_ticks)) <= {-1, *needed}


@given(free_samplings(), st.integers(0, 200))
def test_clips_that_are_ready_stay_as_they_are(sampling: Sampling, n_ticks: int) -> None:
    ready = sampling.n_ready(n_ticks)
    for longer in (n_ticks, n_ticks + 1, n_ticks + 50):
        assert ready <= sampling.n_clips(longer)
        for clip in range(ready):
            assert sampling.clip_ticks(clip, longer) == sampling.clip_ticks(clip)


@given(free_samplings(), st.integers(0, 200))
def test_each_tail_ends_where_it_says(sampling: Sampling, n_ticks: int) -> None:
    n_samples, n_clips = sampling.n_samples(n_ticks), sampling.n_clips(n_ticks)
    ends = [sampling.base(clip, n_ticks) + sampling.needed for clip in range(n_clips)]
    if sampling.tail == "drop":
        assert all(end <= n_samples for end in ends)
        assert sampling.base(n_clips) + sampling.needed > n_samples
    elif sampling.tail == "flush":
        assert bool(ends) == (n_samples >= sampling.needed)
        assert not ends or ends[-1] == n_samples
    else:
        bases = [sampling.base(clip) for clip in range(n_clips)]
        assert all(base < n_samples for base in bases) and sampling.base(n_clips) >= n_samples


@given(
    st.lists(st.fractions(0, 1, max_denominator=1000), min_size=1, max_size=40),
    free_samplings(),
)
def test_times_of_a_variable_rate_are_those_of_its_frames(
    gaps: list[Fraction], sampling: Sampling
) -> None:
    times = np.cumsum([0.0, *map(float, gaps)])
    n_frames = len(gaps)
    n_rows = sampling.n_clips(n_frames)
    if not sampling.is_native or not n_rows:
        return
    starts, ends = row_times_s(sampling, n_rows, n_frames, times)
    first, end = sampling.window
    for row in range(n_rows):
        base = sampling.base(row, n_frames)
        if base + first >= 0 and base + end <= n_frames:
            assert starts[row] == times[base + first] and ends[row] == times[base + end]
    assert (np.diff(starts) >= -1e-9).all() and (starts <= ends + 1e-9).all()
    rate, found = rate_or_times(times, None)
    if found is None:
        even = np.arange(n_frames) / float(rate)
        assert np.abs(times[:-1] - even).max() <= 2e-3


@given(samplings(), st.integers(0, 100), st.integers(1, 5))
def test_neighbouring_clips_show_the_ticks_of_each(
    sampling: Sampling, first: int, count: int
) -> None:
    clips = [sampling.clip_ticks(first + i) for i in range(count)]
    np.testing.assert_array_equal(ticks_of_clips(sampling, first, count), clips)
    if sampling.is_regular:
        series = ticks_of_series(sampling, first, count)
        starts = np.arange(count) * sampling.stride
        picked = series[starts[:, None] + np.arange(sampling.clip_length)]
        np.testing.assert_array_equal(picked, clips)
        assert (np.diff(series) == sampling.step).all()


@given(samplings(), st.integers(0, 50))
def test_rows_start_when_their_clips_do(sampling: Sampling, n_rows: int) -> None:
    rows = range(n_rows)
    starts, ends = row_times_s(sampling, n_rows, 10**6)
    np.testing.assert_allclose(starts, [float(sampling.clip_start_s(i)) for i in rows])
    np.testing.assert_allclose(ends, [float(sampling.clip_end_s(i)) for i in rows])
