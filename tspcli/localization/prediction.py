"""Where the actions are: a trained network over the videos of a store.

The network's curves and maps become proposals, soft-NMS thins these out, and a classifier labels
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tspcli.annotations import Annotations
from tspcli.core.arithmetic import cuda_arithmetic
from tspcli.core.devices import resolve_device
from tspcli.errors import LocalizationError
from tspcli.localization.boundary_matching import BmnOutput
from tspcli.localization.classes import Classifier
from tspcli.localization.feature_windows import (
    LocalizationVideo,
    Paths,
    Window,
    describe,
    open_features,
    require_same_encoder,
    sample_grid,
    windows_of,
)
from tspcli.localization.localize_config import PredictConfig
from tspcli.localization.localizer import Localizer, load_localizer
from tspcli.localization.matching import segment_tiou
from tspcli.localization.results import Prediction
from tspcli.sampling import Sampling

FloatArray = npt.NDArray[np.float64]


# --- proposals ------------------------------------------------------------------------------------


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
    """All pairs of a start and a later end, scored by the product of their probabilities.

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


# --- videos ---------------------------------------------------------------------------------------


class VideoPrediction(NamedTuple):
    """What was found in one video, best first.

    Attributes:
        key: In the store.
        duration_s: Of the video.
        predictions: Each proposal with its likeliest labels, scored by proposal times class: for
            detection.
        proposals: Each proposal once, with its own score and no label: for recall.
    """

    key: str
    duration_s: float
    predictions: list[Prediction]
    proposals: Sequence[Prediction] = ()


def predict(
    run: str | Path | Localizer,
    features: Paths,
    *,
    config: PredictConfig | None = None,
    classifier: Classifier | None = None,
    keys: Sequence[str] | None = None,
    annotations: Annotations | None = None,
    sampling: Sampling | None = None,
) -> Iterator[VideoPrediction]:
    """Find actions in the videos of feature stores, one video after the other.

    Args:
        run: A run folder, a checkpoint, or a network that is loaded already.
        features: One or more feature stores.
        config: The settings.
        classifier: Where labels come from instead of the run's own class head.
        keys: Only these videos; all if None.
        annotations: Give the durations of videos for stores without them; nothing else of them is
            used.
        sampling: Where rows lie in time, for stores that do not say so.

    Raises:
        CheckpointError: If the network cannot be loaded.
        StoreMismatchError: If the features come from another encoder than the network knows.
        LocalizationError: If a key is not in the stores, or a video has no rows.
        AnnotationError: If a video of the stores may be either of two annotated ones.
    """
    config = config or PredictConfig()
    device = resolve_device(config.device)
    localizer = run if isinstance(run, Localizer) else load_localizer(run, device)
    localizer.model.to(device).eval()
    labeller: Classifier | None = classifier
    if labeller is None and localizer.class_head is not None:
        labeller = localizer.class_head.to(device).eval()
    with open_features(features, sampling=sampling) as opened:
        require_same_encoder(localizer.feature_settings, opened.metadata.settings)
        if opened.dim != localizer.feature_dim:
            raise LocalizationError(
                f"The features have width {opened.dim}, the network takes {localizer.feature_dim}.",
                remedy="Use features of the encoder that the network was trained with.",
            )
        unknown = [key for key in keys or () if key not in opened]
        if unknown:
            raise LocalizationError(
                f"The stores hold no video {unknown[0]!r}.", remedy="`tsp inspect` lists them."
            )
        chosen = sorted(opened) if keys is None else list(keys)
        known = annotations or Annotations()
        names = known.pair(list(opened))
        videos = (
            describe(opened[key], known[names[key]] if key in names else None) for key in chosen
        )
        for video, proposals in _proposals(localizer, videos, config, device):
            kept = soft_nms(proposals, video.duration_s, config)
            labelled = _label(video, kept, labeller, config.top_classes)
            yield VideoPrediction(video.key, video.duration_s, labelled, _label(video, kept))


def _proposals(
    localizer: Localizer,
    videos: Iterator[LocalizationVideo],
    config: PredictConfig,
    device: torch.device,
) -> Iterator[tuple[LocalizationVideo, Proposals]]:
    """All proposals of each video; batches are filled with windows of several videos."""
    window_s, n_cells = localizer.config.window_s, localizer.config.model.temporal_scale
    waiting: list[tuple[LocalizationVideo, list[Window]]] = []
    queue: list[tuple[Window, npt.NDArray[np.float32]]] = []
    parts: dict[str, list[Proposals]] = {}

    def run_batch() -> None:
        batch, queue[:] = queue[: config.batch_size], queue[config.batch_size :]
        for window, found in propose_in_windows(localizer, batch, config, device):
            parts[window.key].append(found)

    def finished() -> Iterator[tuple[LocalizationVideo, Proposals]]:
        while waiting and len(parts[waiting[0][0].key]) == len(waiting[0][1]):
            video, _ = waiting.pop(0)
            yield video, join(parts.pop(video.key))

    for video in videos:
        windows = windows_of(video.key, video.duration_s, window_s)
        waiting.append((video, windows))
        parts[video.key] = []
        rows, center_s = video.features.checked_rows(), video.features.center_s
        for window in windows:
            queue.append((window, sample_grid(rows, center_s, window, n_cells)))
            if len(queue) >= config.batch_size:
                run_batch()
        yield from finished()
    while queue:
        run_batch()
    yield from finished()


def fused_confidence(output: BmnOutput) -> Tensor:
    """(B, D, T): the geometric mean of both confidences, as the paper's score takes them.

    With both boundaries the score of a proposal is p_s * p_e * sqrt(p_cc * p_cr).
    """
    return (torch.sigmoid(output.classification) * torch.sigmoid(output.regression)).sqrt()


@torch.inference_mode()
def propose_in_windows(
    localizer: Localizer,
    batch: list[tuple[Window, npt.NDArray[np.float32]]],
    config: PredictConfig,
    device: torch.device,
) -> list[tuple[Window, Proposals]]:
    """The proposals of each of some windows, given with their features (T, C) on the grid."""
    cells = torch.from_numpy(np.stack([cells.T for _, cells in batch])).to(device)
    with cuda_arithmetic(tf32=False):
        output = localizer.model(cells)
    confidence = fused_confidence(output)
    starts = torch.sigmoid(output.start).cpu().numpy()
    ends = torch.sigmoid(output.end).cpu().numpy()
    maps = confidence.cpu().numpy()
    return [
        (window, propose(starts[row], ends[row], maps[row], window, config.peak_ratio))
        for row, (window, _) in enumerate(batch)
    ]


def _label(
    video: LocalizationVideo,
    proposals: Proposals,
    classifier: Classifier | None = None,
    top_classes: int = 1,
) -> list[Prediction]:
    segments = list(
        zip(
            proposals.start_s.tolist(),
            proposals.end_s.tolist(),
            proposals.score.tolist(),
            strict=True,
        )
    )
    if classifier is None or not segments:
        return [Prediction(*segment) for segment in segments]
    features = video.features
    with cuda_arithmetic(tf32=False):
        chances = classifier.probabilities(
            features.rows, features.center_s, proposals.start_s, proposals.end_s
        )
    found = []
    for (start_s, end_s, score), chance in zip(segments, chances, strict=True):
        for index in np.argsort(-chance, kind="stable")[:top_classes]:
            label = classifier.labels[index]
            found.append(Prediction(start_s, end_s, score * float(chance[index]), label))
    return sorted(found, key=lambda prediction: -prediction.score)
