"""What a sampling says of clips, over drawn settings."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.drawn import samplings
from tspcli.errors import UsageError
from tspcli.sampling import Sampling
from tspcli.sampling.spec import as_rate


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
        with pytest.raises(UsageError) as caught:
            as_rate(bad)  # type: ignore[arg-type]  # what is refused
        assert caught.value.data["value"] is bad


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"clip_length": 0}, "clip_length"),
        ({"clip_length": True}, "clip_length"),
        ({"stride": -1}, "stride"),
        ({"stride": 10**10}, "stride"),
        ({"frame_rate": Fraction(60)}, "frame_rate"),
        ({"grid_rate": 0}, "grid rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sampling(**settings)
    assert caught.value.data["option"] == option
    assert caught.value.data["value"] == next(iter(settings.values()))
