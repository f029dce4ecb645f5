"""The ActivityNet protocol: mAP over temporal IoU, and average recall over proposals.

Follows the evaluation of the ActivityNet challenge (Caba Heilbron et al., CVPR 2015, and the
challenge's published evaluation code), including what that code decides silently:

* A prediction takes, among the free ground truths that it overlaps enough, the one that it overlaps
  most. Later predictions on a taken one are false.
* Predictions of equal score, and ground truths of equal overlap, are ordered as numpy's default
  sort, reversed, leaves them. It is not stable, so results with many equal scores may differ
  between numpy versions and processors.
* ActivityNet has ground truths without length. Their IoU with a prediction without length is 0/0,
  which counts as enough for a detection (wherever the two lie) and as too little for a proposal.
* Predictions in videos without ground truth of their class are false positives; proposals in videos
  without any ground truth count in the budget but not in the recall.
* A class without predictions has AP 0; a predicted class without ground truth has no AP at all.

Everything here is arithmetic on columns; no loop runs over predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tspcli.errors import UsageError
from tspcli.localization.matching import (
    FloatArray,
    IntArray,
    best_first,
    matched,
    order_by_group,
    overlaps,
)
from tspcli.localization.results import SegmentTable

ACTIVITYNET_TIOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""0.5, 0.55, …, 0.95."""
THUMOS14_TIOUS: tuple[float, ...] = tuple(np.linspace(0.3, 0.7, 5).tolist())
"""0.3, 0.4, …, 0.7."""
MAX_AVERAGE_PROPOSALS = 100.0


@dataclass(frozen=True)
class DetectionMetrics:
    """Average precisions.

    Attributes:
        tious: The T thresholds.
        labels: The C classes of the ground truth.
        ap: (T, C), each in 0..1.
        n_ground_truth: Number of annotated actions.
        n_predictions: Number of predictions that were counted.
        n_unknown_label: Predictions left out because no ground truth has their class.
        n_per_class: Number of annotated actions of each class.
    """

    tious: tuple[float, ...]
    labels: tuple[str, ...]
    ap: FloatArray
    n_ground_truth: int
    n_predictions: int
    n_unknown_label: int
    n_per_class: tuple[int, ...]

    @property
    def map_per_tiou(self) -> FloatArray:
        """The mAP at each threshold, (T,): the mean over classes."""
        return self.ap.mean(axis=1)

    @property
    def average_map(self) -> float:
        """The mean of mAP over thresholds, the challenge's headline figure."""
        return float(self.map_per_tiou.mean())

    def map_at(self, tiou: float) -> float:
        """The mAP at one of the thresholds."""
        near = np.flatnonzero(np.isclose(self.tious, tiou))
        if not near.size:
            raise UsageError(
                f"mAP was not computed at tIoU {tiou}.",
                remedy=f"It was at {', '.join(f'{value:g}' for value in self.tious)}.",
            )
        return float(self.map_per_tiou[near[0]])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "map": {f"{tiou:.2f}": self.map_at(tiou) for tiou in self.tious},
            "average_map": self.average_map,
            "ap_per_class": dict(zip(self.labels, self.ap.mean(axis=0).tolist(), strict=True)),
            "n_ground_truth": self.n_ground_truth,
            "n_predictions": self.n_predictions,
            "n_unknown_label": self.n_unknown_label,
        }


@dataclass(frozen=True)
class ProposalMetrics:
    """Recall against the average number of proposals per video.

    Attributes:
        tious: The T thresholds.
        average_proposals: (100,) average number of proposals per video (AN).
        recall: (T, 100), each in 0..1.
        n_videos: Videos with ground truth.
        n_ground_truth: Number of annotated actions.
        n_proposals: Number of proposals given.
    """

    tious: tuple[float, ...]
    average_proposals: FloatArray
    recall: FloatArray
    n_videos: int
    n_ground_truth: int
    n_proposals: int

    @property
    def average_recall(self) -> FloatArray:
        """AR at each AN, (100,): the mean over thresholds."""
        return self.recall.mean(axis=0)

    @property
    def auc(self) -> float:
        """Area under AR over AN, divided by the largest AN: the challenge's figure, as 0..1."""
        area = np.trapezoid(self.average_recall, self.average_proposals)
        return float(area / self.average_proposals[-1])

    def ar_at(self, proposals: float) -> float | None:
        """AR@``proposals``; None where the curve does not reach that far."""
        axis = self.average_proposals
        if proposals > axis[-1] * (1 + 1e-9):
            return None
        return float(np.interp(proposals, axis, self.average_recall))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "ar": {str(count): self.ar_at(count) for count in (1, 10, 100)},
            "auc": self.auc,
            "average_proposals": self.average_proposals.tolist(),
            "average_recall": self.average_recall.tolist(),
            "n_videos": self.n_videos,
            "n_ground_truth": self.n_ground_truth,
            "n_proposals": self.n_proposals,
        }


def evaluate_detection(
    ground_truth: SegmentTable,
    predictions: SegmentTable,
    tious: Sequence[float] = ACTIVITYNET_TIOUS,
) -> DetectionMetrics:
    """Interpolated average precision of each class at each tIoU threshold.

    Args:
        ground_truth: Annotated actions, see :func:`~tspcli.localization.results.ground_truth_table`
        predictions: Labelled and scored segments.
        tious: Thresholds, each above 0.

    Raises:
        UsageError: If there is no ground truth or a threshold is not in (0, 1].
    """
    thresholds = _check(ground_truth, tious)
    n_classes = len(ground_truth.labels)
    label = _translate(predictions.label, predictions.labels, ground_truth.labels)
    video = _translate(predictions.video, predictions.videos, ground_truth.videos)
    order, first_of_class = order_by_group(label, predictions.score, n_classes)
    label, video = label[order], video[order]

    truth_key = ground_truth.label * len(ground_truth.videos) + ground_truth.video
    key = np.where(video >= 0, label * len(ground_truth.videos) + video, -1)
    pairs = overlaps(
        truth_key,
        (ground_truth.start_s, ground_truth.end_s),
        key,
        (predictions.start_s[order], predictions.end_s[order]),
        float(thresholds.min()),
    )
    pairs = best_first(pairs)

    n_truths = np.bincount(ground_truth.label, minlength=n_classes)
    ap = np.zeros((len(thresholds), n_classes))
    for row, threshold in enumerate(thresholds):
        enough = ~(pairs.tiou < threshold)
        hits = matched(pairs.item[enough], pairs.truth[enough], len(ground_truth))
        ap[row] = _average_precisions(hits, first_of_class, n_truths)
    return DetectionMetrics(
        tuple(thresholds.tolist()),
        ground_truth.labels,
        ap,
        len(ground_truth),
        len(order),
        len(predictions) - len(order),
        tuple(n_truths.tolist()),
    )


def evaluate_proposals(
    ground_truth: SegmentTable,
    proposals: SegmentTable,
    tious: Sequence[float] = ACTIVITYNET_TIOUS,
    max_average_proposals: float | None = MAX_AVERAGE_PROPOSALS,
) -> ProposalMetrics:
    """Average recall against the average number of proposals per video.

    A video's budget is a share of its own proposals, the same share for all videos: so many that
    the average over the videos with ground truth is AN.

    Args:
        ground_truth: Annotated actions; labels do not matter.
        proposals: Scored segments.
        tious: Thresholds, each above 0.
        max_average_proposals: The largest AN; None takes all proposals.

    Raises:
        UsageError: If there is no ground truth or no proposal, or a value makes no sense.
    """
    thresholds = _check(ground_truth, tious)
    if not len(proposals):
        raise UsageError("There are no proposals to evaluate.", remedy="Check the results file.")
    n_videos = len(ground_truth.videos)
    if max_average_proposals is None:
        max_average_proposals = float(len(proposals)) / n_videos
    if not 0 < max_average_proposals < np.inf:
        raise UsageError(
            f"The largest average number of proposals is {max_average_proposals}.",
            remedy="Give a positive number; ActivityNet's is 100.",
        )
    video = _translate(proposals.video, proposals.videos, ground_truth.videos)
    order, first_of_video = order_by_group(video, proposals.score, n_videos)
    counts = np.diff(first_of_video)
    # Shares are truncated to whole proposals, so the order of these operations matters.
    ratio = max_average_proposals * float(n_videos) / len(proposals)
    kept = np.minimum((counts * ratio).astype(np.int64), counts)
    n_kept = int(kept.sum())
    percents = np.arange(1, 101) / 100.0
    rank = np.arange(len(order)) - first_of_video[video[order]]
    within = rank < kept[video[order]]
    order, rank = order[within], rank[within]

    pairs = overlaps(
        ground_truth.video,
        (ground_truth.start_s, ground_truth.end_s),
        video[order],
        (proposals.start_s[order], proposals.end_s[order]),
        float(thresholds.min()),
    )
    recall = np.zeros((len(thresholds), len(percents)))
    if n_kept:
        shares = percents * (max_average_proposals * float(n_videos) / n_kept)
        budgets = np.minimum((kept[:, None] * shares).astype(np.int64), kept[:, None])
        budget_of_truth = budgets[ground_truth.video]
        for row, threshold in enumerate(thresholds):
            enough = pairs.tiou >= threshold
            found_at = np.full(len(ground_truth), np.iinfo(np.int64).max)
            np.minimum.at(found_at, pairs.truth[enough], rank[pairs.item[enough]])
            found = found_at[:, None] < budget_of_truth
            recall[row] = found.sum(axis=0) / len(ground_truth)
    return ProposalMetrics(
        tuple(thresholds.tolist()),
        percents * max_average_proposals,
        recall,
        n_videos,
        len(ground_truth),
        len(proposals),
    )


def _check(ground_truth: SegmentTable, tious: Sequence[float]) -> FloatArray:
    thresholds = np.asarray(tious, dtype=np.float64)
    if (
        thresholds.ndim != 1
        or not thresholds.size
        or not ((thresholds > 0) & (thresholds <= 1)).all()
    ):
        raise UsageError(
            f"{list(tious)} are not valid tIoU thresholds.", remedy="Give numbers above 0, up to 1."
        )
    if not len(ground_truth):
        raise UsageError(
            "There is no annotated action to compare with.",
            remedy="Check the subset: test subsets come without annotations.",
        )
    return thresholds


def _translate(index: IntArray, names: Sequence[str], known: Sequence[str]) -> IntArray:
    """Indices into ``names`` as indices into ``known``; -1 for what is not there."""
    place = {name: number for number, name in enumerate(known)}
    # The entry at the end is what the index -1 finds.
    table = np.array([*(place.get(name, -1) for name in names), -1], dtype=np.int64)
    return table[index]


def _average_precisions(hits: IntArray, first_of_class: IntArray, n_truths: IntArray) -> FloatArray:
    """Area under the interpolated precision-recall curve of each class.

    Precision falls with every false positive, so its maximum over all later places is reached at a
    true positive, and only those need to be looked at.

    Args:
        hits: Ascending places of the true positives, in the order by class and score.
        first_of_class: Where each class starts, (C + 1,).
        n_truths: Ground truths of each class, (C,).
    """
    ap = np.zeros(len(n_truths))
    bounds = np.searchsorted(hits, first_of_class)
    for label in np.flatnonzero(np.diff(bounds)):
        places = hits[bounds[label] : bounds[label + 1]] - first_of_class[label] + 1
        precision = np.arange(1, len(places) + 1) / places
        best_later = np.maximum.accumulate(precision[::-1])
        ap[label] = best_later.sum() / n_truths[label]
    return ap
