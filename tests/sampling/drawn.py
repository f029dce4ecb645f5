"""Samplings that hypothesis draws."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from tspcli.sampling import Sampling


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
