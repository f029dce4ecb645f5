"""What seeds can say: paired contrasts with intervals, exact tests, corrections, and power."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
"""Two-sided error of every test and interval."""


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms, paired over seeds.

    Attributes:
        differences: One per seed, in the figure's unit.
    """

    differences: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.differences)

    @property
    def mean(self) -> float:
        """Mean difference."""
        return float(np.mean(self.differences))

    @property
    def spread(self) -> float:
        """Standard deviation between seeds; NaN for one seed."""
        return float(np.std(self.differences, ddof=1)) if self.n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean by Student's t; infinite for one seed."""
        if self.n < 2:
            return -math.inf, math.inf
        from scipy import stats

        half = float(stats.t.ppf(1 - ALPHA / 2, self.n - 1)) * self.spread / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Two-sided p of the paired t test; NaN where it says nothing."""
        if self.n < 2 or self.spread == 0:
            return math.nan
        from scipy import stats

        return float(2 * stats.t.sf(abs(self.mean) / (self.spread / math.sqrt(self.n)), self.n - 1))

    @property
    def sign_flip_p(self) -> float:
        """Two-sided p of the exact sign-flip test: all 2^n ways to turn differences round."""
        values = np.abs(np.asarray(self.differences))
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=self.n)))
        sums = np.abs(signs @ values)
        return float(np.mean(sums >= abs(sum(self.differences)) - 1e-9))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values of a family of tests, by name."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return adjusted


def power(effect: float, spread: float, n: int) -> float:
    """Chance that a paired t test over ``n`` seeds rejects, if the true mean is ``effect``."""
    from scipy import stats

    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    shift = effect / spread * math.sqrt(n)
    upper = stats.nct.sf(critical, n - 1, shift)
    return float(upper + stats.nct.cdf(-critical, n - 1, shift))


def seeds_needed(effect: float, spread: float, *, least: int, most: int, wanted: float) -> int:
    """The smallest number of seeds with enough power, within bounds that were fixed before.

    Args:
        effect: The difference that is to be seen.
        spread: Standard deviation of the differences between seeds.
        least: At least so many.
        most: At most so many, whatever the power.
        wanted: The power, such as 0.9.
    """
    enough = (n for n in range(least, most + 1) if power(effect, spread, n) >= wanted)
    return next(enough, most)


def differences(better: Sequence[float], worse: Sequence[float]) -> Contrast:
    """The contrast of two arms whose figures are in the order of the same seeds."""
    return Contrast(tuple(a - b for a, b in zip(better, worse, strict=True)))
