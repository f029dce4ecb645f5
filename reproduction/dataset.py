"""The untrimmed data set of the experiment, and the trimmed clips that stand in for Kinetics.

The design and its reasons are in ``docs/reproduction.md``. In short: one scene and one actor
per video; classes are motions; for a share of the videos the scene is of a kind that belongs to the
class; between its actions the actor idles, rehearses, or performs a motion that is no action here
because a higher one occurs in this video.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.scenes import HELD_OUT
from reproduction.synthetic import (
    MOTIONS,
    Performance,
    RenderSpec,
    SceneChoice,
    SyntheticVideo,
    render_video,
)
from tspcli.annotations import Segment
from tspcli.core.files import replacing

SUBSETS = {"train": "training", "valid": "validation", "unseen": "testing"}
"""Splits of untrimmed videos, and what ActivityNet calls them; ``unseen`` shows held-out scenes."""
ANNOTATIONS = "annotations.json"
TRIMMED_TABLE = "trimmed.csv"
PERFORMANCES = "performances.csv"
VIDEOS, TRIMMED = "videos", "trimmed"


@dataclass(frozen=True)
class DatasetSpec(RenderSpec):
    """What decides on the data set; times in seconds.

    Attributes:
        n_train, n_valid, n_unseen: Untrimmed videos; the last in scenes of held-out kinds.
        scene_share: Of all videos, trimmed clips included: those whose scene is of a kind of their
            own class. The others show a scene of any class's kind, so that looks are distributed
            alike whatever the share, and only their tie to the class changes.
        n_trimmed_train, n_trimmed_valid: Trimmed clips.
        other_s: Shortest and longest motion that is no action.
        margin_s: The actor idles at least so long before and after such a motion.
        trimmed_s: Length of a trimmed clip.
        other_chance, rehearsal_chance: How often a gap holds a motion that is an action in other
            videos, and how often a rehearsal; otherwise the actor idles.
        rehearsal_tempo, rehearsal_reach: Least and most, as shares of an action's.
    """

    MARKED: ClassVar[bool] = True

    n_train: int = 100
    n_valid: int = 150
    n_unseen: int = 48
    scene_share: float = 0.9
    n_trimmed_train: int = 240
    n_trimmed_valid: int = 120
    duration_s: tuple[float, float] = (22.0, 28.0)
    action_s: tuple[float, float] = (2.5, 5.0)
    gap_s: tuple[float, float] = (3.0, 6.0)
    other_s: tuple[float, float] = (1.6, 3.2)
    margin_s: float = 0.4
    trimmed_s: float = 2.4
    other_chance: float = 0.4
    rehearsal_chance: float = 0.3
    rehearsal_tempo: tuple[float, float] = (0.3, 0.45)
    rehearsal_reach: tuple[float, float] = (0.3, 0.45)
    actor_size: float = 1.35
    fps: int = 15
    height: int = 72
    width: int = 96


def plan_untrimmed(spec: DatasetSpec) -> dict[str, list[SyntheticVideo]]:
    """Decide on the untrimmed videos of all splits."""
    counts = {"train": spec.n_train, "valid": spec.n_valid, "unseen": spec.n_unseen}
    plans: dict[str, list[SyntheticVideo]] = {}
    for number, (split, count) in enumerate(counts.items()):
        rng, looks = spec.generator(100 + number), spec.generator(300 + number)
        plans[split] = []
        for index in range(count):
            scene = _scene(spec, looks, index, unseen=split == "unseen")
            plans[split].append(_untrimmed(spec, rng, f"v_{split}_{index:04d}", index, scene))
    return plans


def _scene(
    spec: DatasetSpec, looks: np.random.Generator, turn: int, *, unseen: bool = False
) -> SceneChoice:
    """The scene of a video of class ``turn``, as many random numbers whatever comes out.

    Looks have random numbers of their own, so that a video moves alike whatever the share of scenes
    that belong to the class, and looks alike as long as it does not change sides.
    """
    chance, kind = float(looks.random()), int(looks.integers(HELD_OUT))
    any_class, seed = int(looks.integers(len(MOTIONS))), int(looks.integers(1 << 32))
    own = turn % len(MOTIONS) if chance < spec.scene_share else any_class
    return SceneChoice(spec.seed, own, HELD_OUT if unseen else kind, seed)


def _untrimmed(
    spec: DatasetSpec, rng: np.random.Generator, name: str, turn: int, scene: SceneChoice
) -> SyntheticVideo:
    rank = turn % len(MOTIONS)
    duration_s = round(float(rng.uniform(*spec.duration_s)), 1)
    actions: list[Segment] = []
    others: list[Performance] = []
    time_s = 0.0
    while True:
        gap_s = float(rng.uniform(*spec.gap_s))
        action_s = float(rng.uniform(*spec.action_s))
        last = time_s + gap_s + action_s > duration_s - 1.0
        end_s = duration_s if last else time_s + gap_s
        other = _other(spec, rng, rank, time_s, end_s)
        if other is not None:
            others.append(other)
        if last:
            break
        actions.append(Segment(round(end_s, 2), round(end_s + action_s, 2), MOTIONS[rank]))
        time_s = actions[-1].end_s
    return spec.video(name, rng, duration_s, actions, others, scene)


def _other(
    spec: DatasetSpec, rng: np.random.Generator, rank: int, start_s: float, end_s: float
) -> Performance | None:
    """What happens in the gap between two actions, if anything."""
    chance, length = rng.random(), float(rng.uniform(*spec.other_s))
    lower, any_motion = int(rng.integers(max(rank, 1))), int(rng.integers(len(MOTIONS)))
    tempo, reach = (
        float(rng.uniform(*spec.rehearsal_tempo)),
        float(rng.uniform(*spec.rehearsal_reach)),
    )
    place = rng.random()
    length = min(length, end_s - start_s - 2 * spec.margin_s)
    if length < spec.other_s[0] / 2 or chance >= spec.other_chance + spec.rehearsal_chance:
        return None
    first = start_s + spec.margin_s + place * (end_s - start_s - 2 * spec.margin_s - length)
    first, last = round(first, 2), round(first + length, 2)
    if chance < spec.other_chance and rank > 0:
        return Performance(first, last, MOTIONS[lower])
    return Performance(first, last, MOTIONS[any_motion], tempo, reach)


def plan_trimmed(spec: DatasetSpec) -> dict[str, list[SyntheticVideo]]:
    """Decide on the trimmed clips of both splits: each is one motion from end to end."""
    plans: dict[str, list[SyntheticVideo]] = {}
    counts = (("train", spec.n_trimmed_train), ("valid", spec.n_trimmed_valid))
    for number, (split, count) in enumerate(counts):
        rng, looks = spec.generator(200 + number), spec.generator(400 + number)
        plans[split] = [
            spec.video(
                f"trimmed_{split}_{i:04d}",
                rng,
                spec.trimmed_s,
                (Segment(0.0, spec.trimmed_s, MOTIONS[i % len(MOTIONS)]),),
                scene=_scene(spec, looks, i),
            )
            for i in range(count)
        ]
    return plans


def render_experiment(
    spec: DatasetSpec,
    folder: str | Path,
    *,
    processes: int = 1,
    on_video: Callable[[int, int], None] | None = None,
) -> None:
    """Render all files that are not there yet, and write the annotations.

    Args:
        spec: What to render.
        folder: Gets ``videos/{train,valid,unseen}``, ``trimmed/{train,valid}``,
            ``annotations.json`` (in ActivityNet's format), ``trimmed.csv`` and, for the record,
            ``performances.csv``.
        processes: How many render at a time.
        on_video: Told how many videos of how many are there.
    """
    folder = Path(folder)
    untrimmed, trimmed = plan_untrimmed(spec), plan_trimmed(spec)
    todo: list[tuple[SyntheticVideo, Path]] = []
    total = 0
    for name, plans in ((VIDEOS, untrimmed), (TRIMMED, trimmed)):
        for split, videos in plans.items():
            (folder / name / split).mkdir(parents=True, exist_ok=True)
            total += len(videos)
            paths = [(video, folder / name / split / f"{video.name}.mp4") for video in videos]
            todo += [(video, path) for video, path in paths if not path.exists()]
    done = total - len(todo)
    tell = on_video or (lambda done, total: None)
    tell(done, total)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(render_video, *item) for item in todo]):
            future.result()
            done += 1
            tell(done, total)
    with replacing(folder / ANNOTATIONS) as aside:
        aside.write_text(json.dumps(activitynet_json(untrimmed), indent=1), encoding="utf-8")
    rows: list[Sequence[Any]] = [("video", "subset", "start", "end", "label")]
    rows += [(v.name, s, *v.actions[0]) for s, videos in trimmed.items() for v in videos]
    _write_table(folder / TRIMMED_TABLE, rows)
    rows = [("video", "start", "end", "motion", "tempo", "reach")]
    for videos in untrimmed.values():
        for video in videos:
            rows += [(video.name, *other) for other in video.performances]
    _write_table(folder / PERFORMANCES, rows)


def activitynet_json(plans: dict[str, list[SyntheticVideo]]) -> dict[str, Any]:
    """The annotations in the layout of ActivityNet's release; names lose their ``v_``."""
    database = {
        video.name.removeprefix("v_"): {
            "subset": SUBSETS[split],
            "duration": video.n_frames / video.fps,
            "resolution": f"{video.width}x{video.height}",
            "annotations": [
                {"segment": [action.start_s, action.end_s], "label": action.label}
                for action in video.actions
            ],
        }
        for split, videos in plans.items()
        for video in videos
    }
    return {"version": "rendered", "taxonomy": [], "database": database}


def _write_table(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with replacing(path) as aside, open(aside, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
