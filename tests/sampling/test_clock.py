"""Which frame is shown when, over drawn frame times and rates."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from tests.builders.shown import shown_frames
from tspcli.sampling.clock import TickTrack, display_end_s, grid_tick, round_half_away

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
def test_a_track_reports_what_the_complete_list_does(times: list[Fraction], rate: Fraction) -> None:
    end_s = display_end_s(times, None)
    track = TickTrack(rate)
    reported: list[int] = []
    for index, time in enumerate(times):
        reported += [index - 1] * len(track.push(time))
    reported += [len(times) - 1] * len(track.finish(end_s))
    assert reported == shown_frames(times, end_s, rate)
    assert track.n_ticks == len(reported) >= 1


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=2000))
def test_rounding_is_to_the_nearest_and_halves_go_away_from_zero(value: Fraction) -> None:
    rounded = round_half_away(value)
    assert abs(rounded - value) <= Fraction(1, 2)
    if abs(rounded - value) == Fraction(1, 2):
        assert abs(rounded) > abs(value)


def test_the_last_frame_is_shown_for_its_duration_or_the_mean() -> None:
    times = [Fraction(k, 10) for k in range(5)]
    assert display_end_s(times, Fraction(1, 2)) == Fraction(9, 10)
    assert display_end_s(times, None) == Fraction(1, 2)
    assert display_end_s(times[:1], None) == 0
