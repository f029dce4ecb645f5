"""Untrimmed videos that are rendered, with known actions: for tests and for the experiments.

A scene is an actor (a shape of some colour and size) before a textured background that drifts. Most
of the time the actor idles; now and then it performs an action. Classes are motions. Shape, colour,
size, place and background are drawn anew for every video and are independent of the class, unless a
video is given a scene of some class's kind (:mod:`reproduction.scenes`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from reproduction.scenes import draw_scene, scene_kind
from tspcli.annotations import Segment
from tspcli.core.files import replacing
from tspcli.errors import UsageError

MOTIONS: tuple[str, ...] = ("bounce", "sway", "circle", "spin", "pulse", "shake")
"""Names of the action classes: up and down, side to side, round, turning, swelling, trembling."""


class Performance(NamedTuple):
    """Something that the actor does although it is no action of its video.

    Attributes:
        start_s, end_s: Seconds after the video's first frame.
        motion: One of :data:`MOTIONS`.
        tempo, reach: Shares of the tempo and the reach that an action would have.
    """

    start_s: float
    end_s: float
    motion: str
    tempo: float = 1.0
    reach: float = 1.0


class SceneChoice(NamedTuple):
    """The scene of a video.

    Attributes:
        set_seed: Of the data set, which decides on its kinds of scene.
        class_id: The class whose kind it is; index into :data:`MOTIONS`.
        kind: See :func:`reproduction.scenes.scene_kind`.
        seed: Decides on the jitter.
    """

    set_seed: int
    class_id: int
    kind: int
    seed: int


@dataclass(frozen=True)
class SyntheticVideo:
    """The plan of one video; rendering it twice gives the same frames.

    Attributes:
        name: File name without extension.
        seed: Decides on the scene and on how each action is performed.
        duration_s: In seconds.
        actions: In time order, not overlapping.
        fps: Frames a second.
        height, width: Of the frames, in pixels.
        performances: What else the actor does, outside of the actions.
        actor_size: Times the usual size of the actor.
        marked: Whether the actor bears a mark off its middle, so that it is seen to turn.
        scene: Which kind of scene it is and what decides on its jitter; None for one of its own
            that has nothing in common with any other.
    """

    name: str
    seed: int
    duration_s: float
    actions: tuple[Segment, ...]
    fps: int = 30
    height: int = 96
    width: int = 128
    performances: tuple[Performance, ...] = ()
    actor_size: float = 1.0
    marked: bool = False
    scene: SceneChoice | None = None

    @property
    def n_frames(self) -> int:
        """Frames in the file."""
        return round(self.duration_s * self.fps)


@dataclass(frozen=True, kw_only=True)
class RenderSpec:
    """What decides on any set of rendered videos; times in seconds.

    Attributes:
        duration_s: Shortest and longest video.
        action_s, gap_s: Shortest and longest action, and time between actions.
        actor_size: Times the usual size.
        fps, height, width: Of the files.
        seed: Of the whole set.
    """

    MARKED: ClassVar[bool] = False
    """Whether actors bear a mark off their middle."""

    duration_s: tuple[float, float] = (16.0, 22.0)
    action_s: tuple[float, float] = (2.5, 4.5)
    gap_s: tuple[float, float] = (2.0, 4.5)
    actor_size: float = 1.0
    fps: int = 30
    height: int = 96
    width: int = 128
    seed: int = 0

    def generator(self, number: int) -> np.random.Generator:
        """The random numbers of one part of the set."""
        return np.random.Generator(np.random.Philox(key=[self.seed, number]))

    def video(
        self,
        name: str,
        rng: np.random.Generator,
        duration_s: float,
        actions: Sequence[Segment],
        performances: Sequence[Performance] = (),
        scene: SceneChoice | None = None,
    ) -> SyntheticVideo:
        """A video of the set; its own seed is the next of the random numbers."""
        return SyntheticVideo(
            name,
            int(rng.integers(1 << 32)),
            duration_s,
            tuple(actions),
            self.fps,
            self.height,
            self.width,
            tuple(performances),
            self.actor_size,
            self.MARKED,
            scene,
        )


@dataclass(frozen=True)
class SyntheticSpec(RenderSpec):
    """A data set of rendered videos.

    Attributes:
        n_videos: Split name to number of videos. Scenes of different splits are different.
        classes: Motions that occur; a part of :data:`MOTIONS`.
    """

    n_videos: Mapping[str, int] = field(default_factory=lambda: {"train": 12, "valid": 6})
    classes: tuple[str, ...] = MOTIONS[:3]

    def __post_init__(self) -> None:
        unknown = [name for name in self.classes if name not in MOTIONS]
        if unknown or not self.classes:
            raise UsageError(
                f"There is no motion {unknown or 'at all'}.", remedy=f"Known: {', '.join(MOTIONS)}."
            )


def plan_videos(spec: SyntheticSpec) -> dict[str, list[SyntheticVideo]]:
    """Decide on the videos of every split, without rendering any."""
    plans: dict[str, list[SyntheticVideo]] = {}
    turn = 0
    for number, (split, count) in enumerate(spec.n_videos.items()):
        rng = spec.generator(number)
        plans[split] = []
        for index in range(count):
            duration_s = round(rng.uniform(*spec.duration_s), 1)
            actions: list[Segment] = []
            start_s = rng.uniform(*spec.gap_s)
            while True:
                end_s = start_s + rng.uniform(*spec.action_s)
                if end_s > duration_s - 0.5:
                    break
                # In turn, so that no class is left without samples in a small set.
                label = spec.classes[turn % len(spec.classes)]
                turn += 1
                actions.append(Segment(round(start_s, 2), round(end_s, 2), label))
                start_s = end_s + rng.uniform(*spec.gap_s)
            plans[split].append(spec.video(f"{split}_{index:04d}", rng, duration_s, actions))
    return plans


def render_dataset(
    spec: SyntheticSpec, folder: str | Path, *, gop: int = 60
) -> dict[str, list[SyntheticVideo]]:
    """Render all videos of a data set that are not there yet.

    Args:
        spec: What to render.
        folder: Gets a subfolder of ``.mp4`` files for each split, and ``actions.csv`` with the
            columns video, subset, start, end, label.
        gop: Frames from one key frame to the next.

    Returns:
        The plans by split.
    """
    folder = Path(folder)
    plans = plan_videos(spec)
    for split, videos in plans.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for video in videos:
            path = folder / split / f"{video.name}.mp4"
            if not path.exists():
                render_video(video, path, gop=gop)
    with open(folder / "actions.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["video", "subset", "start", "end", "label"])
        for split, videos in plans.items():
            for video in videos:
                writer.writerows([video.name, split, *action] for action in video.actions)
    return plans


def render_video(video: SyntheticVideo, path: str | Path, *, gop: int = 60) -> None:
    """Write one video as H.264; the file appears whole or not at all."""
    import av

    with replacing(path) as aside, av.open(str(aside), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=video.fps)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        # x264's macroblock tree decides differently from one call to the next at these sizes: one
        # video in eight came out otherwise, and with it whatever was trained on them.
        stream.options = {
            "crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0",
        }  # fmt: skip
        stream.gop_size = gop
        for pixels in render_frames(video):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def render_frames(video: SyntheticVideo) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of a video, (height, width, 3) uint8 RGB."""
    scene = _Scene(video)
    for index in range(video.n_frames):
        yield scene.frame(index / video.fps)


@dataclass(frozen=True)
class _Pose:
    """Where the actor is, in units of its radius, how far it is turned and how much swollen."""

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    scale: float = 1.0

    def times(self, reach: float) -> _Pose:
        """The same pose nearer to the pose of rest."""
        scale = 1.0 + reach * (self.scale - 1.0)
        return _Pose(reach * self.x, reach * self.y, reach * self.angle, scale)


def motion_pose(motion: str, seconds: float, rate_hz: float, sense: float) -> _Pose:
    """The pose of a motion ``seconds`` after it began.

    Args:
        motion: One of :data:`MOTIONS`.
        seconds: Since the action's start.
        rate_hz: Repetitions a second.
        sense: 1 or -1, the direction in which it begins.
    """
    turn = 2 * math.pi * rate_hz * seconds
    swing = sense * math.sin(turn)
    if motion == "bounce":
        return _Pose(y=1.2 * swing)
    if motion == "sway":
        return _Pose(x=1.2 * swing)
    if motion == "circle":
        return _Pose(x=1.2 * (math.cos(turn) - 1), y=1.2 * swing)
    if motion == "spin":
        return _Pose(angle=sense * turn)
    if motion == "pulse":
        return _Pose(scale=1.0 + 0.45 * math.sin(turn))
    assert motion == "shake"
    return _Pose(x=0.35 * math.sin(3 * turn), y=0.35 * sense * math.cos(3 * turn))


class _Scene:
    """What a video looks like."""

    def __init__(self, video: SyntheticVideo) -> None:
        import cv2

        self.video = video
        rng = np.random.Generator(np.random.Philox(video.seed))
        height, width = video.height, video.width
        coarse = rng.uniform(30, 225, (6, 8, 3)).astype(np.float32)
        fine = rng.normal(0, 12, (height // 4, width // 4, 3)).astype(np.float32)
        size = (2 * width, 2 * height)
        smooth = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))
        texture = smooth + cv2.resize(fine, size, interpolation=cv2.INTER_LINEAR)
        self.texture = np.clip(texture, 0, 255).astype(np.uint8)
        self.drift = rng.uniform(-6, 6, 2)
        self.radius = float(rng.uniform(0.11, 0.16)) * height * video.actor_size
        self.corners = int(rng.integers(3, 7))
        # A colour far from the background's mean, or the actor would sometimes be invisible.
        mean = self.texture.reshape(-1, 3).mean(axis=0)
        self.colour = tuple(int(c) for c in np.where(mean > 127, rng.integers(0, 70, 3), 255))
        self.place = rng.uniform(0.38, 0.62, 2) * (width, height)
        self.idle = rng.uniform(0, 2 * math.pi, 2)
        self.manner = [
            (float(rng.uniform(1.2, 1.9)), 1.0 if rng.random() < 0.5 else -1.0)
            for _ in (*video.actions, *video.performances)
        ]
        self.scene = None
        if video.scene is not None:
            set_seed, class_id, kind, seed = video.scene
            look = np.random.Generator(np.random.Philox(seed))
            self.scene = draw_scene(scene_kind(set_seed, class_id, kind), look, height, width)
            self.colour, self.corners = self.scene.colour, self.scene.corners
        self.patch = tuple(255 - c for c in self.colour)

    def frame(self, time_s: float) -> npt.NDArray[np.uint8]:
        import cv2

        video = self.video
        if self.scene is not None:
            pixels = self.scene.background(time_s)
        else:
            left = int(video.width / 2 + self.drift[0] * time_s) % video.width
            top = int(video.height / 2 + self.drift[1] * time_s) % video.height
            pixels = self.texture[top : top + video.height, left : left + video.width].copy()
        pose = self._pose(time_s)
        # An idle actor is not frozen: it wanders a little, slowly.
        wander = 0.12 * np.sin(0.9 * time_s + self.idle)
        centre = self.place + self.radius * (np.array([pose.x, pose.y]) + wander)
        angles = pose.angle + 2 * math.pi * np.arange(self.corners) / self.corners
        reach = self.radius * pose.scale * np.where(np.arange(self.corners) == 0, 1.35, 1.0)
        points = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        fixed = np.round(points * 16).astype(np.int32)
        cv2.fillPoly(pixels, [fixed], self.colour, lineType=cv2.LINE_AA, shift=4)
        if video.marked:
            mark = centre + 0.55 * reach[0] * np.array([math.cos(pose.angle), math.sin(pose.angle)])
            place = [int(v) for v in np.round(mark * 16)]
            size = max(16, int(0.35 * self.radius * pose.scale * 16))
            cv2.circle(pixels, place, size, self.patch, -1, lineType=cv2.LINE_AA, shift=4)
        return pixels

    def _pose(self, time_s: float) -> _Pose:
        n_actions = len(self.video.actions)
        for action, (rate_hz, sense) in zip(self.video.actions, self.manner, strict=False):
            if action.start_s <= time_s < action.end_s:
                return motion_pose(action.label, time_s - action.start_s, rate_hz, sense)
        others = zip(self.video.performances, self.manner[n_actions:], strict=True)
        for other, (rate_hz, sense) in others:
            if other.start_s <= time_s < other.end_s:
                seconds = time_s - other.start_s
                pose = motion_pose(other.motion, seconds, other.tempo * rate_hz, sense)
                # Turning has no reach: a slower turn is what is less of it.
                return pose if other.motion == "spin" else pose.times(other.reach)
        return _Pose()


def actions_by_label(videos: Sequence[SyntheticVideo]) -> dict[str, int]:
    """How many actions of each class some videos have."""
    counts: dict[str, int] = {}
    for video in videos:
        for action in video.actions:
            counts[action.label] = counts.get(action.label, 0) + 1
    return counts
