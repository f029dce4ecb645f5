"""Ticks and times of clips as arrays agree with those of each clip."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.drawn import samplings
from tspcli.sampling import Sampling
from tspcli.sampling.windows import NeededTicks, row_starts_s, ticks_of_clips, ticks_of_series


@given(samplings(), st.integers(0, 400))
def test_needed_ticks_are_the_union_of_the_clips(sampling: Sampling, start: int) -> None:
    span = range(start, start + 60)
    wanted = set()
    clip = 0
    while sampling.clip_ticks(clip)[0] < span.stop:
        wanted.update(sampling.clip_ticks(clip))
        clip += 1
    assert NeededTicks(sampling).among(span) == tuple(sorted(wanted & set(span)))


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
    starts = [float(sampling.clip_start_s(i)) for i in range(n_rows)]
    np.testing.assert_allclose(row_starts_s(sampling, n_rows), starts)
