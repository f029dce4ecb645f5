"""What the timeline draws of one video's rows, at the detail that the page asks for.

Rows are sent in tiles of at most :data:`TILE_POINTS` points: at level L a point stands for 2 to the
power of L rows, so that a page of any width gets about one point per pixel however long the video
is, and no more rows are read than it has points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.analysis.inspect import clip_rows
from tspcli.analysis.similarity import unit_rows
from tspcli.sampling.resampling import FloatArray
from tspcli.store.video_features import VideoFeatures
from tspcli.viewer.workspace import Heads

TILE_POINTS = 512
MOST_CELLS = 400
"""Cells a side of a similarity matrix."""

N_CLASSES = 5
"""How many of the action head's classes are drawn, those with the largest mean probability."""

_SAMPLE_ROWS = 1024
_ROWS_PER_CELL = 4


@dataclass(frozen=True)
class Series:
    """The rows of one video in one store.

    Attributes:
        video: The rows.
        heads: The heads of the encoder that made them.
    """

    video: VideoFeatures
    heads: Heads

    @property
    def top_level(self) -> int:
        """The level at which one tile holds the video."""
        return max(0, math.ceil(math.log2(max(1, self.video.n_rows) / TILE_POINTS)))

    def facts(self) -> dict[str, Any]:
        """Numbers that a page needs to place tiles, and what they show."""
        video = self.video
        centers = video.center_s if video.n_rows else np.zeros(1)
        clip_s = float(video.end_s[0] - video.start_s[0]) if video.n_rows else 0.0
        n_steps = max(1, len(centers) - 1)
        return {
            "rows": video.n_rows,
            "first_s": float(centers[0]),
            "step_s": float(centers[-1] - centers[0]) / n_steps or clip_s or 1.0,
            "clip_s": clip_s,
            "tile_points": TILE_POINTS,
            "top_level": self.top_level,
            "classes": [self.heads.classes[n] for n in self._classes],
            "region": self.heads.region is not None,
        }

    def tile(self, level: int, number: int) -> dict[str, Any]:
        """One tile: change over time, colours, probabilities.

        Args:
            level: A point stands for 2 to this power rows; from 0 to :attr:`top_level`.
            number: Which tile, from 0.

        Raises:
            LookupError: If there is no such tile.
        """
        share = 1 << level
        first = number * TILE_POINTS * share
        if not (0 <= level <= self.top_level and 0 <= first < self.video.n_rows):
            raise LookupError(f"there is no tile {number} at level {level}")
        index = np.arange(first, min(first + TILE_POINTS * share, self.video.n_rows), share)
        # The middle of what a point stands for.
        index = np.minimum(index + share // 2, self.video.n_rows - 1)
        rows = self._rows(index)
        # About the point: a row and the first later one whose clip shares no frame with it.
        apart = max(share, clip_rows(self.video))
        last = self.video.n_rows - 1
        before = np.clip(index - apart // 2, 0, last)
        after = np.clip(index - apart // 2 + apart, 0, last)
        change = 1 - (unit_rows(self._rows(before)) * unit_rows(self._rows(after))).sum(axis=1)
        change[after - before < apart] = np.nan
        action, region = self._probabilities(rows)
        return {
            "change": _numbers(np.maximum(change, 0)),
            "colors": self._colors(rows).tobytes().hex(),
            "classes": [_numbers(action[:, n]) for n in self._classes],
            "region": None if region is None else _numbers(region[:, 0]),
        }

    def matrix(self, start_s: float, end_s: float) -> tuple[int, float, bytes]:
        """Cosines of the rows between two times, all pairs.

        Returns:
            Cells a side, the cosine that 0 stands for (255 stands for 1), and the cells row by row.
        """
        centers = self.video.center_s
        first = int(np.searchsorted(centers, start_s))
        last = max(int(np.searchsorted(centers, end_s, side="right")), first + 1)
        first, last = min(first, self.video.n_rows - 1), min(last, self.video.n_rows)
        cells = min(MOST_CELLS, last - first)
        taken = min(last - first, cells * _ROWS_PER_CELL)
        index = first + (np.arange(taken) * (last - first)) // taken
        rows = np.nan_to_num(self._rows(index))
        groups = np.array_split(rows, cells)
        units = unit_rows(np.stack([group.mean(axis=0) for group in groups]))
        cosines = units @ units.T
        low = min(float(np.percentile(cosines, 2)), 1 - 1e-6)
        shades = np.clip((cosines - low) / (1 - low) * 255, 0, 255).astype(np.uint8)
        return cells, low, shades.tobytes()

    def _rows(self, index: npt.NDArray[np.int64]) -> FloatArray:
        """Rows by number: as one block where they are close together, else one by one."""
        first, last = int(index[0]), int(index[-1]) + 1
        if last - first <= 4 * len(index):
            return self.video.read_rows(first, last)[index - first]
        return np.concatenate([self.video.read_rows(int(i), int(i) + 1) for i in index])

    @cached_property
    def _sample(self) -> FloatArray:
        count = min(self.video.n_rows, _SAMPLE_ROWS)
        if not count:
            return np.zeros((0, self.video.dim), dtype=np.float32)
        rows = self._rows((np.arange(count) * self.video.n_rows) // max(1, count))
        return rows[np.isfinite(rows).all(axis=1)]

    @cached_property
    def _palette(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Mean, the first principal axes, and the values that become the darkest and brightest."""
        rows = self._sample.astype(np.float64)
        mean = rows.mean(axis=0)
        # Through the smaller of the two matrices of products.
        if len(rows) < rows.shape[1]:
            axes = np.linalg.svd(rows - mean, full_matrices=False)[2][:3]
        else:
            axes = np.linalg.eigh((rows - mean).T @ (rows - mean))[1][:, ::-1].T[:3]
        # As in analysis.plot_data: the sign must not depend on the solver.
        largest = np.abs(axes).argmax(axis=1)
        axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
        low, high = np.percentile((rows - mean) @ axes.T, [2, 98], axis=0)
        return mean, axes, low, np.where(high > low, high, low + 1)

    def _colors(self, rows: FloatArray) -> npt.NDArray[np.uint8]:
        colors = np.full((len(rows), 3), 128.0)
        if len(self._sample) > 1:
            mean, axes, low, high = self._palette
            values = (np.nan_to_num(rows).astype(np.float64) - mean) @ axes.T
            colors[:, : len(axes)] = 255 * np.clip((values - low) / (high - low), 0, 1)
        return colors.round().astype(np.uint8)

    def _probabilities(self, rows: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        action: FloatArray = np.zeros((len(rows), 0))
        if self.heads.action is not None:
            action = _softmax(rows, *self.heads.action)
        region = self.heads.region
        return action, None if region is None else _softmax(rows, *region)

    @cached_property
    def _classes(self) -> list[int]:
        if not len(self._sample):
            return []
        mean = self._probabilities(self._sample)[0].mean(axis=0)
        return [int(n) for n in np.argsort(-mean, kind="stable")[:N_CLASSES]]


def _softmax(rows: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    logits = rows.astype(np.float64) @ weight.T + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _numbers(values: FloatArray) -> list[float | None]:
    """Values as JSON has them: three decimals are more than a screen shows."""
    return [round(float(v), 3) if math.isfinite(v) else None for v in values]
