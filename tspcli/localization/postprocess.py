"""From the network's curves and maps to proposals, and soft-NMS over them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tspcli.localization.grid import Window
from tspcli.localization.pairing import segment_tiou
from tspcli.localization.settings import PredictConfig

FloatArray = npt.NDArray[np.float64]


class Proposals(NamedTuple):
    """Scored segments of one video, (M,) each; seconds after the first frame."""

    start_s: FloatArray
    end_s: FloatArray
    score: FloatArray

    def take(self, index: npt.NDArray[np.int64]) -> Proposals:
        """The chosen ones, in that order."""
        return Proposals(self.start_s[index], self.end_s[index], self.score[index])


def boundary_candidates(
    probability: npt.NDArray[np.floating], peak_ratio: float
) -> npt.NDArray[np.bool_]:
    """Where a boundary may be: local maxima, and all above a share of the largest value.

    Args:
        probability: (T,), 0..1.
        peak_ratio: The share, the paper's 1/2.
    """
    padded = np.concatenate(([-np.inf], probability, [-np.inf]))
    peak = (padded[1:-1] > padded[:-2]) & (padded[1:-1] > padded[2:])
    return np.asarray(peak | (probability > peak_ratio * probability.max()))


def propose(
    start: npt.NDArray[np.floating],
    end: npt.NDArray[np.floating],
    confidence: npt.NDArray[np.floating],
    window: Window,
    peak_ratio: float,
) -> Proposals:
    """All pairs of a start and a later end, scored by the product of what is known of them.

    Args:
        start: (T,) probability of a start at line i.
        end: (T,) probability of an end at line i + 1.
        confidence: (D, T), of proposal (d, i), from both of its confidences.
        window: Where the grid lies in time.
        peak_ratio: See :func:`boundary_candidates`.

    Returns:
        Proposals that begin in the video, those that reach beyond its end cut there.
    """
    durations, n_cells = confidence.shape
    starts = np.flatnonzero(boundary_candidates(start, peak_ratio))
    ends = np.flatnonzero(boundary_candidates(end, peak_ratio))
    first, last = np.meshgrid(starts, ends, indexing="ij")
    possible = (last >= first) & (last - first < durations)
    first, last = first[possible], last[possible]
    score = start[first] * end[last] * confidence[last - first, first]
    cell_s = window.duration_s / n_cells
    start_s = window.start_s + first * cell_s
    end_s = np.minimum(window.start_s + (last + 1) * cell_s, window.video_s)
    inside = start_s < end_s
    return Proposals(start_s[inside], end_s[inside], score[inside].astype(np.float64))


def join(parts: list[Proposals]) -> Proposals:
    """The proposals of all windows of a video."""
    return Proposals(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def soft_nms(proposals: Proposals, video_s: float, config: PredictConfig) -> Proposals:
    """Take the best proposal, lower the scores of those that overlap it, and so on.

    A proposal whose tIoU with the one just taken exceeds a threshold has its score multiplied by
    exp(-tIoU^2 / sigma); the threshold is ``nms_low`` plus (``nms_high`` - ``nms_low``) times the
    taken one's share of the video, so that long proposals, which can hardly help overlapping, are
    spared (Bodla et al., 2017, as used by Lin et al.).

    Args:
        proposals: M of one video; the earlier wins where scores are equal.
        video_s: The video's length in seconds.
        config: Sigma, thresholds, and how many to take.

    Returns:
        Up to ``max_proposals``, by descending lowered score.
    """
    score = proposals.score.copy()
    alive = np.ones(len(score), dtype=bool)
    taken: list[int] = []
    kept: list[float] = []
    while len(taken) < config.max_proposals and alive.any():
        best = int(np.argmax(np.where(alive, score, -np.inf)))
        alive[best] = False
        taken.append(best)
        kept.append(float(score[best]))
        tiou = segment_tiou(
            proposals.start_s[best], proposals.end_s[best], proposals.start_s, proposals.end_s
        )
        share = (proposals.end_s[best] - proposals.start_s[best]) / video_s
        threshold = config.nms_low + (config.nms_high - config.nms_low) * share
        lowered = alive & (tiou > threshold)
        score[lowered] *= np.exp(-(tiou[lowered] ** 2) / config.nms_sigma)
    chosen = proposals.take(np.array(taken, dtype=np.int64))
    return chosen._replace(score=np.array(kept, dtype=np.float64))
