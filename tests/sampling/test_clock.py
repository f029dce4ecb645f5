"""Properties of the exact timeline, over drawn frame times and settings."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tspcli.errors import UsageError
from tspcli.sampling.clock import (
    Sampling,
    TickTrack,
    as_rate,
    display_end_s,
    grid_tick,
    round_half_away,
    shown_frames,
)
from tspcli.video.sampled import NeededTicks

positive_rates = st.fractions(min_value=1, max_value=120, max_denominator=1001)
bases = st.sampled_from([Fraction(1, d) for d in (30, 90, 1000, 12800, 15360, 90000, 981)])
grid = Fraction(30)


@st.composite
def frame_times(draw: st.DrawFn) -> list[Fraction]:
    base = draw(bases)
    steps = draw(st.lists(st.integers(1, 2000), min_size=1, max_size=40))
    time = draw(st.integers(-1000, 200000))
    times = [time * base]
    for step in steps:
        time += step
        times.append(time * base)
    return times


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    rate = draw(st.sampled_from([Fraction(30), Fraction(25), Fraction(60000, 1001)]))
    frame_rate = draw(
        st.one_of(
            st.integers(1, 12).map(lambda step: rate / step),
            st.fractions(min_value=1, max_value=int(rate), max_denominator=50),
        )
    )
    return Sampling(frame_rate, draw(st.integers(1, 20)), draw(st.integers(1, 40)), rate)


@given(frame_times())
def test_a_tick_shows_the_last_frame_whose_rounded_time_is_not_after_it(
    times: list[Fraction],
) -> None:
    shown = shown_frames(times, times[-1] + Fraction(1, 10), grid)
    rounded = [grid_tick(time, grid) - grid_tick(times[0], grid) for time in times]
    for tick, index in enumerate(shown):
        assert index == max(i for i, when in enumerate(rounded) if when <= tick)


@given(st.integers(1, 500), bases)
def test_constant_30_fps_shows_every_frame_once(n_frames: int, base: Fraction) -> None:
    # Times that are rounded to their units, as containers round them.
    times = [round_half_away(Fraction(k, 30) / base) * base for k in range(n_frames)]
    assert shown_frames(times, Fraction(n_frames, 30), grid) == list(range(n_frames))


@given(frame_times(), positive_rates)
def test_track_tells_what_the_whole_list_tells(times: list[Fraction], rate: Fraction) -> None:
    end_s = display_end_s(times, None)
    track = TickTrack(rate)
    told: list[int] = []
    for index, time in enumerate(times):
        told += [index - 1] * len(track.push(time))
    told += [len(times) - 1] * len(track.finish(end_s))
    assert told == shown_frames(times, end_s, rate)
    assert track.n_ticks == len(told) >= 1


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=2000))
def test_rounding_is_to_the_nearest_and_halves_go_away_from_zero(value: Fraction) -> None:
    rounded = round_half_away(value)
    assert abs(rounded - value) <= Fraction(1, 2)
    if abs(rounded - value) == Fraction(1, 2):
        assert abs(rounded) > abs(value)


@given(samplings(), st.integers(0, 400))
def test_needed_ticks_are_the_union_of_the_clips(sampling: Sampling, start: int) -> None:
    span = range(start, start + 60)
    wanted = set()
    clip = 0
    while sampling.clip_ticks(clip)[0] < span.stop:
        wanted.update(sampling.clip_ticks(clip))
        clip += 1
    assert NeededTicks(sampling).among(span) == tuple(sorted(wanted & set(span)))


@given(samplings(), st.integers(1, 2000))
def test_every_clip_lies_inside_the_video_and_one_more_would_not(
    sampling: Sampling, n_ticks: int
) -> None:
    n_clips = sampling.n_clips(n_ticks)
    if n_clips:
        assert sampling.clip_ticks(n_clips - 1)[-1] < n_ticks
    assert sampling.clip_end_s(n_clips) * sampling.frame_rate > sampling.n_samples(n_ticks)


@given(samplings(), st.integers(0, 200))
def test_clip_times_follow_from_the_index_alone(sampling: Sampling, clip: int) -> None:
    assert sampling.clip_start_s(clip) == clip * sampling.stride_s
    assert sampling.clip_end_s(clip) - sampling.clip_start_s(clip) == sampling.clip_duration_s
    middle = (sampling.clip_start_s(clip) + sampling.clip_end_s(clip)) / 2
    assert sampling.clip_center_s(clip) == middle


@given(samplings())
def test_a_sampling_survives_being_written_down(sampling: Sampling) -> None:
    assert Sampling.from_dict(sampling.to_dict()) == sampling


def test_the_official_example() -> None:
    # THUMOS14 video_test_0000011: 2373 frames at 30 fps.
    dense = Sampling(stride=1)
    assert dense.n_samples(2373) == 1187
    assert dense.n_clips(2373) == 1172
    assert dense.clip_start_s(1) == Fraction(1, 15)
    assert Sampling().clip_ticks(1) == tuple(range(32, 64, 2))
    assert float(Sampling().clip_center_s(0)) == pytest.approx(8 / 15)


def test_a_floating_point_rate_means_the_number_it_prints_as() -> None:
    assert as_rate(29.97) == Fraction(2997, 100)
    assert as_rate("30000/1001") == Fraction(30000, 1001)
    for bad in (0, -1, "fast", float("nan"), None):
        with pytest.raises(UsageError, match="not a positive number"):
            as_rate(bad)  # type: ignore[arg-type]  # what is refused


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="clip length"):
        Sampling(clip_length=0)
    with pytest.raises(UsageError, match="stride"):
        Sampling(stride=-1)
    with pytest.raises(UsageError, match="above the grid rate"):
        Sampling(frame_rate=Fraction(60))


def test_the_last_frame_is_shown_for_its_duration_or_the_mean() -> None:
    times = [Fraction(k, 10) for k in range(5)]
    assert display_end_s(times, Fraction(1, 2)) == Fraction(9, 10)
    assert display_end_s(times, None) == Fraction(1, 2)
    assert display_end_s(times[:1], None) == 0
