"""What the network trains on: batches of windows with their labels.

Labels are boundary probabilities, and the IoU of every proposal. The grid has T cells and T + 1
lines between them; times here are in cells, line k at time k. Output i of the start curve stands
for line i, output i of the end curve for line i + 1, so that proposal (d, i), which covers
[i, i + d + 1], reads ``start[i]`` and ``end[i + d]``: every boundary that a proposal can have
stands on a line, the video's own ends among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tspcli.annotations import Segment
from tspcli.errors import LocalizationError
from tspcli.localization.boundary_matching import BmnTargets
from tspcli.localization.classes import ClassHead, ClassSamples
from tspcli.localization.feature_windows import (
    LocalizationVideo,
    Window,
    mean_over,
    sample_grid,
    windows_of,
)
from tspcli.localization.localize_config import LabelConfig, TrainConfig

FloatArray = npt.NDArray[np.float32]


# --- labels ---------------------------------------------------------------------------------------


def actions_in_window(
    segments: Sequence[Segment], window: Window, n_cells: int, config: LabelConfig
) -> npt.NDArray[np.float64]:
    """The actions that belong to a window, clipped to it, in cells.

    Returns:
        (G, 2) of start and end, 0 to ``n_cells``. Actions without length inside the window are
        left out, as are those of which too little lies in it.
    """
    found = []
    end_s = min(window.start_s + window.duration_s, window.video_s)
    for segment in segments:
        # An annotation may reach beyond the video; only what lies in the video can be covered.
        start, end = max(segment.start_s, 0.0), min(segment.end_s, window.video_s)
        inside_start, inside_end = max(start, window.start_s), min(end, end_s)
        if inside_end <= inside_start:
            continue
        if inside_end - inside_start >= config.window_coverage * (end - start):
            found.append((inside_start - window.start_s, inside_end - window.start_s))
    scale = n_cells / window.duration_s
    return np.array(found, dtype=np.float64).reshape(-1, 2) * scale


def boundary_labels(
    actions: npt.NDArray[np.float64], n_cells: int, config: LabelConfig
) -> tuple[FloatArray, FloatArray]:
    """How far each line lies in the region around a start, and around an end.

    A line's own region reaches half a cell to both sides; its label is the share of that which the
    best region covers (the paper's overlap ratio IoR).

    Args:
        actions: (G, 2) in cells.
        n_cells: T.
        config: The regions.

    Returns:
        Starts at lines 0..T-1 and ends at lines 1..T, each (T,), 0..1.
    """
    half = np.maximum(
        config.region_ratio * (actions[:, 1] - actions[:, 0]), config.region_min_cells
    )
    lines = np.arange(n_cells, dtype=np.float64)
    return (
        _covered(lines, actions[:, 0], half),
        _covered(lines + 1, actions[:, 1], half),
    )


def iou_map(actions: npt.NDArray[np.float64], n_cells: int, n_durations: int) -> FloatArray:
    """The largest IoU of every proposal with an action.

    Args:
        actions: (G, 2) in cells.
        n_cells: T.
        n_durations: D.

    Returns:
        (D, T): entry (d, i) is of the proposal [i, i + d + 1]; 0 where it leaves the grid.
    """
    start = np.arange(n_cells, dtype=np.float64)[None, :]
    length = np.arange(1, n_durations + 1, dtype=np.float64)[:, None]
    best = np.zeros((n_durations, n_cells))
    for action_start, action_end in actions:
        shared = np.minimum(start + length, action_end) - np.maximum(start, action_start)
        shared = np.maximum(shared, 0.0)
        best = np.maximum(best, shared / (length + (action_end - action_start) - shared))
    best[~valid_proposals(n_cells, n_durations)] = 0
    return best.astype(np.float32)


def valid_proposals(n_cells: int, n_durations: int) -> npt.NDArray[np.bool_]:
    """(D, T): whether proposal (d, i) ends on the grid."""
    ends = np.arange(n_cells)[None, :] + np.arange(1, n_durations + 1)[:, None]
    return np.asarray(ends <= n_cells)


def _covered(
    lines: npt.NDArray[np.float64], middles: npt.NDArray[np.float64], half: npt.NDArray[np.float64]
) -> FloatArray:
    if not len(middles):
        return np.zeros(len(lines), dtype=np.float32)
    low = np.maximum(lines[:, None] - 0.5, middles - half)
    high = np.minimum(lines[:, None] + 0.5, middles + half)
    return np.maximum(high - low, 0.0).max(axis=1).astype(np.float32)


# --- batches --------------------------------------------------------------------------------------


class TrainingWindows:
    """Windows with at least one action, their features on the grid held in memory.

    That is T x C x 4 bytes per window: 2 GB for ActivityNet at T = 100 and C = 512. Of the rows
    themselves, which may be many times as much, one video's are held at a time.

    Attributes:
        windows: The M windows.
        n_empty: Windows left out because no action belongs to them.
        features: (M, C, T) float32.
        actions: Of each window, (G, 2) in cells.
        digest: Of all values of the videos' features.
    """

    def __init__(self, videos: Sequence[LocalizationVideo], config: TrainConfig) -> None:
        self.config = config
        self.windows: list[Window] = []
        self.actions: list[npt.NDArray[np.float64]] = []
        self.n_empty = 0
        n_cells = config.model.temporal_scale
        cells = []
        digest = hashlib.sha256()
        for video in videos:
            rows, center_s = _rows_once(video), video.features.center_s
            digest.update(f"{video.key!r} {rows.shape} {rows.dtype.str}".encode())
            digest.update(np.ascontiguousarray(rows).data)
            for window in windows_of(video.key, video.duration_s, config.window_s):
                actions = actions_in_window(video.segments, window, n_cells, config.labels)
                if not len(actions):
                    self.n_empty += 1
                    continue
                cells.append(sample_grid(rows, center_s, window, n_cells).T.copy())
                self.windows.append(window)
                self.actions.append(actions)
        if not cells:
            raise LocalizationError(
                "No annotated action lies inside its video.",
                remedy="Check that annotations and features are of the same videos, in seconds.",
            )
        self.digest = digest.hexdigest()[:16]
        self.features = torch.from_numpy(np.stack(cells))

    def __len__(self) -> int:
        return len(self.windows)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over the cells inside videos, (C,) each."""
        inside = torch.ones(len(self), self.features.shape[2], dtype=torch.bool)
        for row, window in enumerate(self.windows):
            cell_s = window.duration_s / inside.shape[1]
            centers_s = window.start_s + (np.arange(inside.shape[1]) + 0.5) * cell_s
            inside[row] = torch.from_numpy(centers_s < window.video_s)
        total = square = torch.zeros(self.features.shape[1], dtype=torch.float64)
        for window_cells, used in zip(self.features, inside, strict=True):
            values = window_cells[:, used].double()
            total = total + values.sum(dim=1)
            square = square + (values**2).sum(dim=1)
        mean = total / inside.sum()
        variance = (square / inside.sum() - mean**2).clamp(min=0)
        return mean.float(), variance.sqrt().float()

    def batches(
        self, order: Sequence[int], device: torch.device
    ) -> Iterator[tuple[Tensor, BmnTargets]]:
        """Features (B, C, T) and their labels, batch by batch in the given order."""
        size = self.config.batch_size
        for start in range(0, len(order), size):
            chosen = list(order[start : start + size])
            yield self.features[chosen].to(device), self.targets(chosen, device)

    def targets(self, chosen: Sequence[int], device: torch.device) -> BmnTargets:
        """Labels of some windows."""
        model = self.config.model
        n_cells, durations = model.temporal_scale, model.durations
        starts, ends, maps = [], [], []
        for index in chosen:
            start, end = boundary_labels(self.actions[index], n_cells, self.config.labels)
            starts.append(start)
            ends.append(end)
            maps.append(iou_map(self.actions[index], n_cells, durations))
        start_labels, end_labels, iou = (
            torch.from_numpy(np.stack(part)).to(device) for part in (starts, ends, maps)
        )
        valid = torch.from_numpy(valid_proposals(n_cells, durations)).to(device)
        return BmnTargets(start_labels, end_labels, iou, valid)


def class_samples(videos: Sequence[LocalizationVideo], head: ClassHead) -> ClassSamples:
    """What a class head learns from: one sample per action, or one per video and class."""
    place = {label: index for index, label in enumerate(head.labels)}
    features: list[npt.NDArray[np.float32]] = []
    targets: list[int] = []
    for video in videos:
        segments = [s for s in video.segments if s.label in place and s.end_s > s.start_s]
        if head.config.source == "video":
            segments = list({segment.label: segment for segment in segments}.values())
        if not segments:
            continue
        center_s = video.features.center_s
        start_s = np.array([segment.start_s for segment in segments])
        end_s = np.array([segment.end_s for segment in segments])
        stretch = head.segments(center_s, start_s, end_s)
        features.append(mean_over(_rows_once(video), center_s, *stretch).astype(np.float32))
        targets.extend(place[segment.label] for segment in segments)
    width = len(head.mean)
    return ClassSamples(
        np.concatenate(features) if features else np.zeros((0, width), np.float32),
        np.array(targets, dtype=np.int64),
    )


def _rows_once(video: LocalizationVideo) -> npt.NDArray[np.float32]:
    """All rows of a video, checked against their checksum; the video itself does not keep them."""
    (rows,) = video.features.checked_blocks(video.features.n_rows)
    return rows
