"""Samplings that hypothesis draws."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from tspcli.sampling import Sampling
from tspcli.sampling.spec import TAILS


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


@st.composite
def free_samplings(draw: st.DrawFn) -> Sampling:
    """Samplings of every kind: native or at a rate, any offsets, phases and tails."""
    length, tail = draw(st.integers(1, 8)), draw(st.sampled_from(TAILS))
    lowest = -12 if tail in ("repeat", "zero") else 0
    offsets = sorted(draw(st.lists(st.integers(lowest, 20), min_size=length, max_size=length)))
    others: dict[str, Any] = {
        "offsets": tuple(offsets),
        "phase": draw(st.integers(0, 9)),
        "tail": tail,
        "need": offsets[-1] + draw(st.integers(1, 4)) if lowest == 0 else 0,
    }
    stride = draw(st.integers(1, 30))
    if draw(st.booleans()):
        return Sampling.native(length, stride, **others)
    grid = Fraction(30)
    rate = draw(st.sampled_from([grid, grid / 2, grid / 7, Fraction(25), Fraction(8)]))
    return Sampling(rate, length, stride, grid, **others)
