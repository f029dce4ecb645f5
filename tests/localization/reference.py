"""The protocol and the network's rules as plain loops, one step at a time, to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Truth = tuple[str, str, float, float]
"""Video, label, start, end."""
Guess = tuple[str, str, float, float, float]
"""Video, label, start, end, score."""


def tiou(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (b[1] - b[0]) + (a[1] - a[0]) - shared
    return shared / union if union else math.nan


def descending(values: Sequence[float]) -> list[int]:
    return [int(i) for i in np.argsort(np.array(values, dtype=np.float64))[::-1]]


def average_precision(
    truths: Sequence[Truth], guesses: Sequence[Guess], label: str, threshold: float
) -> float:
    mine = [t for t in truths if t[1] == label]
    candidates = [g for g in guesses if g[1] == label]
    free = [True] * len(mine)
    hits = []
    for index in descending([g[4] for g in candidates]):
        guess = candidates[index]
        near = [i for i, t in enumerate(mine) if t[0] == guess[0]]
        overlaps = [tiou(guess[2:4], mine[i][2:4]) for i in near]
        hit = False
        for place in descending(overlaps):
            if overlaps[place] < threshold:
                break
            if free[near[place]]:
                free[near[place]] = False
                hit = True
                break
        hits.append(hit)
    precisions, recalls = [0.0], [0.0]
    for count in range(1, len(hits) + 1):
        precisions.append(sum(hits[:count]) / count)
        recalls.append(sum(hits[:count]) / len(mine))
    precisions.append(0.0)
    recalls.append(1.0)
    area = 0.0
    for place in range(1, len(recalls)):
        area += (recalls[place] - recalls[place - 1]) * max(precisions[place:])
    return area


def recall_curve(
    truths: Sequence[Truth],
    guesses: Sequence[Guess],
    thresholds: Sequence[float],
    max_average: float | None,
) -> tuple[list[list[float]], list[float]]:
    videos = list(dict.fromkeys(t[0] for t in truths))
    if max_average is None:
        max_average = len(guesses) / len(videos)
    ratio = max_average * len(videos) / len(guesses)
    kept: dict[str, list[Guess]] = {}
    for video in videos:
        mine = [g for g in guesses if g[0] == video]
        order = descending([g[4] for g in mine])
        kept[video] = [mine[i] for i in order][: min(int(len(mine) * ratio), len(mine))]
    n_kept = sum(len(mine) for mine in kept.values())
    recall, axis = [], []
    for threshold in thresholds:
        row = []
        for percent in range(1, 101):
            found = 0
            if n_kept:
                share = percent / 100.0 * (max_average * len(videos) / n_kept)
                for video, _, start, end in truths:
                    budget = min(int(len(kept[video]) * share), len(kept[video]))
                    tious = [tiou(g[2:4], (start, end)) for g in kept[video][:budget]]
                    found += any(value >= threshold for value in tious)
            row.append(found / len(truths))
        recall.append(row)
    for percent in range(1, 101):
        axis.append(percent / 100.0 * max_average)
    return recall, axis


def soft_nms(
    segments: Sequence[tuple[float, float]],
    scores: Sequence[float],
    video_s: float,
    sigma: float,
    low: float,
    high: float,
    limit: int,
) -> list[tuple[int, float]]:
    left = list(enumerate(scores))
    taken: list[tuple[int, float]] = []
    while left and len(taken) < limit:
        best = max(left, key=lambda item: (item[1], -item[0]))
        taken.append(best)
        start, end = segments[best[0]]
        threshold = low + (high - low) * (end - start) / video_s
        rest = []
        for index, score in left:
            if index == best[0]:
                continue
            overlap = tiou((start, end), segments[index])
            if overlap > threshold:
                score *= math.exp(-(overlap**2) / sigma)
            rest.append((index, score))
        left = rest
    return taken


def sampled_features(
    sequence: np.ndarray,
    start: int,
    duration: int,
    n_samples: int,
    per_bin: int,
    boundary_ratio: float,
) -> np.ndarray:
    """(C, N) of the cells [start, start + duration) of a sequence (C, T)."""
    channels, n_cells = sequence.shape
    begin = start - boundary_ratio * duration
    end = start + duration + boundary_ratio * duration
    points = np.zeros((channels, n_samples))
    total = n_samples * per_bin
    for place in range(total):
        time = begin + (end - begin) * place / (total - 1) if total > 1 else begin
        left = math.floor(time - 0.5)
        for cell, weight in ((left, left + 1.5 - time), (left + 1, time - 0.5 - left)):
            if 0 <= cell < n_cells:
                points[:, place // per_bin] += weight * sequence[:, cell] / per_bin
    return points
