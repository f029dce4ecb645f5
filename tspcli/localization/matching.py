"""Pairing predictions with ground truths, in columns: what both metrics are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PAIRS_AT_ONCE = 4_000_000


def segment_tiou(
    start_s: FloatArray, end_s: FloatArray, other_start_s: FloatArray, other_end_s: FloatArray
) -> FloatArray:
    """Intersection over union of segments, element by element with broadcasting.

    Two segments without length have none: NaN.
    """
    shared = np.minimum(end_s, other_end_s) - np.maximum(start_s, other_start_s)
    shared = np.maximum(shared, 0.0)
    union = (other_end_s - other_start_s) + (end_s - start_s) - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(shared / union)


@dataclass(frozen=True)
class Pairs:
    """Pairs of an item (prediction or proposal) and a ground truth; ``n_truths`` of that item."""

    item: IntArray
    truth: IntArray
    tiou: FloatArray
    n_truths: IntArray

    def take(self, index: npt.NDArray[Any]) -> Pairs:
        """The pairs that an index or a mask chooses."""
        return Pairs(self.item[index], self.truth[index], self.tiou[index], self.n_truths[index])

    @staticmethod
    def join(parts: Sequence[Pairs]) -> Pairs:
        """All pairs of several."""
        names = [field.name for field in fields(Pairs)]
        return Pairs(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def order_by_group(
    group: IntArray, score: npt.NDArray[Any], n_groups: int
) -> tuple[IntArray, IntArray]:
    """Items by group, within a group by descending score; those of no group (-1) left out.

    Returns:
        The items' indices, and where each group starts in them, (n_groups + 1,).
    """
    by_group = np.argsort(group, kind="stable")
    first = np.searchsorted(group[by_group], np.arange(n_groups + 1))
    order = by_group.copy()
    for start, end in pairwise(first):
        members = by_group[start:end]
        order[start:end] = members[np.argsort(score[members])[::-1]]
    return order[first[0] : first[-1]], first - first[0]


def overlaps(
    truth_key: IntArray,
    truth_s: tuple[FloatArray, FloatArray],
    item_key: IntArray,
    item_s: tuple[FloatArray, FloatArray],
    min_tiou: float,
) -> Pairs:
    """All pairs of equal key, by item and then by ground truth.

    Items that overlap no ground truth by ``min_tiou`` are left out, the others are there with all.
    """
    by_key = np.argsort(truth_key, kind="stable")
    sorted_key = truth_key[by_key]
    first = np.searchsorted(sorted_key, item_key, side="left")
    count = np.searchsorted(sorted_key, item_key, side="right") - first
    ends = np.cumsum(count)
    none = np.zeros(0, dtype=np.int64)
    found = [Pairs(none, none, np.zeros(0), none)]
    start = 0
    while start < len(item_key):
        # At least one item, and no more pairs at a time than memory is to be spent on.
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        item = np.repeat(np.arange(start, stop), count[start:stop])
        within = np.arange(len(item)) - (ends[item] - count[item] - done)
        truth = by_key[first[item] + within]
        tiou = segment_tiou(item_s[0][item], item_s[1][item], truth_s[0][truth], truth_s[1][truth])
        pairs = Pairs(item, truth, tiou, count[item])
        useful = np.zeros(stop - start, dtype=bool)
        useful[item[~(tiou < min_tiou)] - start] = True
        found.append(pairs.take(useful[item - start]))
        start = stop
    return Pairs.join(found)


def best_first(pairs: Pairs) -> Pairs:
    """Sort each item's ground truths by descending IoU.

    Ties are left as numpy's default sort of one item's values leaves them, reversed. NaN comes
    first.
    """
    order = np.arange(len(pairs.item))
    for count in np.unique(pairs.n_truths):
        rows = np.flatnonzero(pairs.n_truths == count).reshape(-1, count)
        ascending = np.argsort(pairs.tiou[rows], axis=1)
        order[rows] = np.take_along_axis(rows, ascending[:, ::-1], axis=1)
    return pairs.take(order)


def matched(item: IntArray, truth: IntArray, n_truths: int) -> IntArray:
    """The items that get a ground truth when, in their order, each takes its best free one.

    Deferred acceptance: all items ask for their best choice at once, a ground truth keeps the
    earliest item that asked, the others ask for their next. Since all ground truths rank items
    alike, that ends in the matching which goes through the items one by one.

    Args:
        item: Ascending; the rows of one item are its choices, best first.
        truth: The choices.
        n_truths: Number of ground truths.
    """
    if not item.size:
        return item
    is_first = np.concatenate(([True], item[1:] != item[:-1]))
    choice = np.flatnonzero(is_first)
    last = np.concatenate((choice[1:], [len(item)]))
    holder = np.full(n_truths, np.iinfo(np.int64).max)
    while True:
        np.minimum.at(holder, truth[choice], item[choice])
        refused = holder[truth[choice]] != item[choice]
        if not refused.any():
            return item[choice]
        choice = choice + refused
        left = choice < last
        choice, last = choice[left], last[left]
