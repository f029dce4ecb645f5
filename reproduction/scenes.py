"""What rendered videos look like: scenes of several kinds per class, and how one kind varies.

A kind fixes a palette, a pattern, a layout, props and the actor's looks. Videos of one kind differ
in all of that by some jitter, as two gyms differ. Kinds follow from the data set's seed; what a
video shows follows from its own scene seed, apart from how its actor moves.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

N_KINDS = 4
"""Kinds of scene per class."""
HELD_OUT = N_KINDS - 1
"""The kind of every class that no training video shows."""
_PATTERNS = ("blobs", "stripes", "checks")
_N_PROPS = 3
_HUE_JITTER = 0.035
_PLACE_JITTER = 0.06


@dataclass(frozen=True)
class SceneKind:
    """What all scenes of one kind share; places and sizes in shares of the frame's height.

    Attributes:
        hues: Of the wall's two colours and of the floor, each in [0, 1).
        lightness: Of the wall's two colours and of the floor, each in [0, 1].
        pattern: ``blobs``, ``stripes`` or ``checks``.
        period: Of stripes and checks.
        angle: Of stripes and checks, in radians.
        horizon: Where the floor begins, as a share of the height.
        props: Place (x, y), size and hue of each prop, and whether it is round.
        actor_hue: Hue of the actor's colour.
        corners: Of the actor.
    """

    hues: tuple[float, float, float]
    lightness: tuple[float, float, float]
    pattern: str
    period: float
    angle: float
    horizon: float
    props: tuple[tuple[float, float, float, float, bool], ...]
    actor_hue: float
    corners: int


@lru_cache(maxsize=256)
def scene_kind(set_seed: int, class_id: int, kind: int) -> SceneKind:
    """One kind of scene.

    Args:
        set_seed: Of the data set.
        class_id: The class that the kind belongs to.
        kind: Below :data:`N_KINDS`; :data:`HELD_OUT` is kept out of training.
    """
    rng = np.random.Generator(np.random.Philox(key=[set_seed, 1000 + class_id * N_KINDS + kind]))
    first, second, floor, actor, *prop_hues = rng.random(4 + _N_PROPS).tolist()
    props = tuple(
        (
            float(rng.uniform(0.05, 1.25)),
            float(rng.uniform(0.1, 0.9)),
            float(rng.uniform(0.12, 0.24)),
            hue,
            bool(rng.random() < 0.5),
        )
        for hue in prop_hues
    )
    return SceneKind(
        hues=(first, second, floor),
        lightness=(
            float(rng.uniform(0.3, 0.7)),
            float(rng.uniform(0.3, 0.7)),
            float(rng.uniform(0.2, 0.6)),
        ),
        pattern=_PATTERNS[int(rng.integers(len(_PATTERNS)))],
        period=float(rng.uniform(0.15, 0.4)),
        angle=float(rng.uniform(0, math.pi)),
        horizon=float(rng.uniform(0.55, 0.95)),
        props=props,
        actor_hue=actor,
        corners=int(rng.integers(3, 7)),
    )


@dataclass(frozen=True)
class Scene:
    """One scene, ready to be drawn on.

    Attributes:
        backdrop: As high as the frame and twice as wide, uint8 RGB; a frame sees half of it.
        start: The first column that a frame sees at time 0.
        drift: How fast that column moves, in pixels per second; it wraps around.
        colour: The actor's, RGB.
        corners: Of the actor.
    """

    backdrop: Pixels
    start: float
    drift: float
    colour: tuple[int, int, int]
    corners: int

    def background(self, time_s: float) -> Pixels:
        """What lies behind the actor at a time, as large as a frame."""
        wide = self.backdrop.shape[1]
        left = int(self.start + self.drift * time_s) % wide
        right = left + wide // 2
        seen = self.backdrop[:, left:right]
        if right > wide:
            return np.concatenate([seen, self.backdrop[:, : right - wide]], axis=1)
        return np.ascontiguousarray(seen)


def draw_scene(kind: SceneKind, rng: np.random.Generator, height: int, width: int) -> Scene:
    """A scene of a kind, with the jitter that tells one place from another.

    Args:
        kind: What it shares with others.
        rng: Decides on the rest. What is seen first may be any part of the backdrop, in trimmed
            clips and untrimmed videos alike, so that single frames of both look alike.
        height: Of a frame, in pixels.
        width: Likewise.
    """
    import cv2

    wide = 2 * width
    hues = np.asarray(kind.hues) + rng.normal(0, _HUE_JITTER, 3)
    light = np.clip(np.asarray(kind.lightness) + rng.normal(0, 0.05, 3), 0.1, 0.9)
    first, second, floor = (_rgb(h, li, 0.5) for h, li in zip(hues, light, strict=True))
    # Half of the full contrast: what moves has to stay visible before it.
    share = 0.25 + 0.5 * _pattern(kind, rng, height, wide)[..., None]
    backdrop = share * first + (1 - share) * second
    horizon = int(height * (kind.horizon + float(rng.normal(0, _PLACE_JITTER / 2))))
    backdrop[horizon:] = 0.35 * backdrop[horizon:] + 0.65 * floor
    noise = rng.normal(0, 10, (height // 4, width // 4, 3)).astype(np.float32)
    pixels = np.clip(backdrop + cv2.resize(noise, (wide, height)), 0, 255).astype(np.uint8)
    for x, y, size, hue, is_round in kind.props:
        moved_x, moved_y = np.array([x, y]) + rng.normal(0, _PLACE_JITTER, 2)
        half = 0.5 * height * size * float(rng.uniform(0.8, 1.25))
        colour = _rgb(hue + float(rng.normal(0, _HUE_JITTER)), 0.5, 0.85)
        for right in (0, width):  # once per frame's width, so that every frame sees every prop
            centre = (int(moved_x * height) % width + right, int(moved_y * height))
            _draw_prop(pixels, centre, half, colour, is_round)
    start, drift = float(rng.uniform(0, wide)), float(rng.uniform(-6, 6))
    hue = kind.actor_hue + float(rng.normal(0, _HUE_JITTER))
    # Far from the backdrop's mean, or the actor would sometimes be invisible.
    red, green, blue = (int(c) for c in _rgb(hue, 0.15 if pixels.mean() > 127 else 0.88, 0.7))
    return Scene(pixels, start, drift, (red, green, blue), kind.corners)


def _pattern(
    kind: SceneKind, rng: np.random.Generator, tall: int, wide: int
) -> npt.NDArray[np.float64]:
    """How much of the wall's first colour each pixel has, shape (tall, wide), in [0, 1]."""
    import cv2

    if kind.pattern == "blobs":
        coarse = rng.uniform(0, 1, (6, 8)).astype(np.float32)
        smooth = cv2.resize(coarse, (wide, tall), interpolation=cv2.INTER_CUBIC)
        return np.clip(np.asarray(smooth, dtype=np.float64), 0, 1)
    period = kind.period * tall * float(rng.uniform(0.85, 1.15))
    angle = kind.angle + float(rng.normal(0, 0.1))
    y, x = np.mgrid[:tall, :wide] + rng.uniform(0, period)
    along = (math.cos(angle) * x + math.sin(angle) * y) / period
    across = (math.cos(angle) * y - math.sin(angle) * x) / period
    if kind.pattern == "stripes":
        return np.asarray(along % 1.0 < 0.5, dtype=np.float64)
    return np.asarray((along % 1.0 < 0.5) ^ (across % 1.0 < 0.5), dtype=np.float64)


def _draw_prop(
    pixels: Pixels,
    centre: tuple[int, int],
    half: float,
    colour: npt.NDArray[np.float64],
    is_round: bool,
) -> None:
    import cv2

    fill = tuple(int(c) for c in colour)
    if is_round:
        cv2.circle(pixels, centre, round(half), fill, -1, lineType=cv2.LINE_AA)
    else:
        low = (round(centre[0] - half), round(centre[1] - half))
        high = (round(centre[0] + half), round(centre[1] + half))
        cv2.rectangle(pixels, low, high, fill, -1)


def _rgb(hue: float, lightness: float, saturation: float) -> npt.NDArray[np.float64]:
    return 255.0 * np.asarray(colorsys.hls_to_rgb(hue % 1.0, lightness, saturation))
