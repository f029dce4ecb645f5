"""Where the actions are: a trained network over the videos of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tspcli.annotations import Annotations
from tspcli.errors import LocalizationError
from tspcli.localization.bmn import BmnOutput
from tspcli.localization.checkpoints import Localizer, load_localizer, pick_device
from tspcli.localization.classes import Classifier
from tspcli.localization.grid import Window, sample_grid, windows_of
from tspcli.localization.postprocess import Proposals, join, propose, soft_nms
from tspcli.localization.results import Prediction
from tspcli.localization.settings import PredictConfig
from tspcli.localization.videos import (
    LocalizationVideo,
    Paths,
    describe,
    open_features,
    require_same_encoder,
)
from tspcli.timeline import Sampling


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
        annotations: Tell the durations of videos for stores that do not; nothing else of them is
            used.
        sampling: Where rows lie in time, for stores that do not tell it.

    Raises:
        CheckpointError: If the network cannot be loaded.
        StoreMismatchError: If the features come from another encoder than the network knows.
        LocalizationError: If a key is not in the stores, or a video has no rows.
        AnnotationError: If it cannot be told which of two annotated videos one of the stores is.
    """
    config = config or PredictConfig()
    device = pick_device(config.device)
    localizer = run if isinstance(run, Localizer) else load_localizer(run, device)
    localizer.model.to(device).eval()
    labeller: Classifier | None = classifier
    if labeller is None and localizer.class_head is not None:
        labeller = localizer.class_head.to(device).eval()
    with open_features(features, sampling=sampling) as opened:
        require_same_encoder(localizer.feature_settings, opened.settings)
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
        for window, found in _run(localizer, batch, config, device):
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
def _run(
    localizer: Localizer,
    batch: list[tuple[Window, npt.NDArray[np.float32]]],
    config: PredictConfig,
    device: torch.device,
) -> list[tuple[Window, Proposals]]:
    cells = torch.from_numpy(np.stack([cells.T for _, cells in batch])).to(device)
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
    chances = classifier.probabilities(
        features.rows, features.center_s, proposals.start_s, proposals.end_s
    )
    found = []
    for (start_s, end_s, score), chance in zip(segments, chances, strict=True):
        for index in np.argsort(-chance, kind="stable")[:top_classes]:
            label = classifier.labels[index]
            found.append(Prediction(start_s, end_s, score * float(chance[index]), label))
    return sorted(found, key=lambda prediction: -prediction.score)
