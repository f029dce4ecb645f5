"""The rendered data set is what its design says."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from reproduction.dataset import (
    SUBSETS,
    DatasetSpec,
    activitynet_json,
    plan_trimmed,
    plan_untrimmed,
    render_experiment,
)
from reproduction.scenes import HELD_OUT, Scene, draw_scene, scene_kind
from reproduction.synthetic import MOTIONS, SyntheticVideo, render_frames, render_video
from tests.reproduction.running import MINIATURE
from tspcli.annotations import read_actions
from tspcli.video.inputs import list_videos

PLANS = plan_untrimmed(DatasetSpec())
VIDEOS = [video for split in PLANS.values() for video in split]


def rank(motion: str) -> int:
    return MOTIONS.index(motion)


def test_a_motion_is_an_action_where_no_higher_one_occurs() -> None:
    for video in VIDEOS:
        (label,) = {action.label for action in video.actions}
        for other in video.performances:
            assert rank(other.motion) < rank(label) or other.tempo < 0.5


def test_every_motion_but_the_highest_is_an_action_here_and_none_there() -> None:
    actions = {action.label for video in VIDEOS for action in video.actions}
    others = {other.motion for video in VIDEOS for other in video.performances if other.tempo == 1}
    assert actions == set(MOTIONS)
    assert others == set(MOTIONS[:-1])


def test_rehearsals_are_slower_and_smaller_than_any_action() -> None:
    slow = [other for video in VIDEOS for other in video.performances if other.tempo != 1]
    assert len(slow) > 50
    assert all(other.tempo < 0.5 and other.reach < 0.5 for other in slow)


def test_nothing_overlaps_and_all_lies_in_the_video() -> None:
    for video in VIDEOS:
        spans = sorted([a[:2] for a in video.actions] + [p[:2] for p in video.performances])
        assert spans[0][0] >= 0 and spans[-1][1] <= video.duration_s
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
        assert 1 <= len(video.actions) <= 4


def test_scenes_of_training_validation_and_trimmed_clips_are_disjoint() -> None:
    trimmed = plan_trimmed(DatasetSpec())
    seeds = [v.seed for v in VIDEOS] + [v.seed for split in trimmed.values() for v in split]
    assert len(set(seeds)) == len(seeds)


def test_scenes_belong_to_the_class_for_the_share_of_videos_that_is_asked_for() -> None:
    spec = DatasetSpec(n_train=1200, n_trimmed_train=1200)
    for share in (0.0, 0.5, 0.9, 1.0):
        chosen = replace(spec, scene_share=share)
        for plans in (plan_untrimmed(chosen), plan_trimmed(chosen)):
            own = [MOTIONS[v.scene.class_id] == v.actions[0].label for v in plans["train"]]
            expected = share + (1 - share) / len(MOTIONS)
            assert abs(np.mean(own) - expected) < 4 * np.sqrt(0.25 / len(own))


def test_videos_pair_across_shares() -> None:
    """Only whose kind of scene it is changes, and never back: what moves stays the same."""
    some, most = (plan_untrimmed(DatasetSpec(scene_share=share)) for share in (0.5, 0.9))
    for split in some:
        for one, two in zip(some[split], most[split], strict=True):
            assert one == replace(two, scene=one.scene)
            assert one.scene.seed == two.scene.seed and one.scene.kind == two.scene.kind
            if MOTIONS[one.scene.class_id] == one.actions[0].label:
                assert one.scene == two.scene


def test_one_kind_of_scene_is_kept_from_everything_but_the_unseen_videos() -> None:
    plans = plan_untrimmed(DatasetSpec())
    assert {v.scene.kind for v in plans["unseen"]} == {HELD_OUT}
    seen = [*plans["train"], *plans["valid"], *plan_trimmed(DatasetSpec())["train"]]
    assert {v.scene.kind for v in seen} == set(range(HELD_OUT))


def test_single_frames_of_trimmed_clips_and_untrimmed_videos_look_alike() -> None:
    """Both begin anywhere in their scene: the drift brings nothing that the other has not seen."""
    spec = DatasetSpec(n_train=120, n_trimmed_train=120, scene_share=1.0)
    starts = []
    for plans in (plan_untrimmed(spec), plan_trimmed(spec)):
        scenes = [draw(v) for v in plans["train"]]
        starts.append([scene.start / scene.backdrop.shape[1] for scene in scenes])
    for values in starts:
        assert abs(np.mean(values) - 0.5) < 0.12 and np.std(values) > 0.22


def draw(video: SyntheticVideo) -> Scene:
    set_seed, class_id, kind, seed = video.scene
    rng = np.random.Generator(np.random.Philox(seed))
    return draw_scene(scene_kind(set_seed, class_id, kind), rng, video.height, video.width)


def test_without_scenes_of_their_own_the_look_says_nothing_about_the_class() -> None:
    """The first frames of two classes, before anything moves, differ no more than by chance."""
    spec = replace(DatasetSpec(), n_train=72, scene_share=0.0)
    first = {name: [] for name in MOTIONS[:2]}
    for video in plan_untrimmed(spec)["train"]:
        label = video.actions[0].label
        if label in first:
            first[label].append(next(render_frames(video)).mean(axis=(0, 1)))
    one, two = (np.array(values) for values in first.values())
    spread = np.sqrt(one.var(axis=0) / len(one) + two.var(axis=0) / len(two))
    assert (np.abs(one.mean(axis=0) - two.mean(axis=0)) < 4 * spread).all()


def motion_energy(video: SyntheticVideo, start_s: float, end_s: float) -> float:
    frames = [f.astype(float) for f in render_frames(video)]
    part = frames[int(start_s * video.fps) : int(end_s * video.fps)]
    return float(np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(part)]))


def test_actors_move_when_the_annotations_say_so() -> None:
    video = next(v for v in VIDEOS if v.actions[0].label == "sway")
    action = video.actions[0]
    still = replace(video, actions=(), performances=())
    inside = motion_energy(video, action.start_s, action.end_s)
    assert inside > 1.5 * motion_energy(still, action.start_s, action.end_s)


def test_a_rehearsal_moves_less_than_the_action() -> None:
    video = next(v for v in VIDEOS if any(p.tempo < 0.5 for p in v.performances))
    other = next(p for p in video.performances if p.tempo < 0.5 and p.motion != "spin")
    full = replace(video, performances=(other._replace(tempo=1.0, reach=1.0),))
    assert motion_energy(video, *other[:2]) < motion_energy(full, *other[:2])


def test_files_and_annotations(tmp_path: Path) -> None:
    spec = replace(
        MINIATURE.data, n_train=2, n_valid=1, n_unseen=1, n_trimmed_train=1, n_trimmed_valid=1
    )
    told: list[tuple[int, int]] = []
    render_experiment(spec, tmp_path, on_video=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 6) and told[-1] == (6, 6)
    assert len(list_videos([tmp_path])) == 6
    plans = plan_untrimmed(spec)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert content == json.loads(json.dumps(activitynet_json(plans)))
    for name, videos in plans.items():
        for video in videos:
            entry = content["database"][video.name.removeprefix("v_")]
            assert entry["subset"] == SUBSETS[name]
            told_segments = [tuple(item["segment"]) for item in entry["annotations"]]
            assert told_segments == [(a.start_s, a.end_s) for a in video.actions]
    assert len(read_actions(tmp_path / "annotations.json", "validation")) == 1
    assert read_actions(tmp_path / "annotations.json")["train_0000"].subset == "training"
    head = (tmp_path / "videos" / "train" / "v_train_0000.mp4").read_bytes()[:2000]
    assert b"avc1" in (tmp_path / "videos" / "train" / "v_train_0000.mp4").read_bytes()
    # What is there is not rendered again.
    render_experiment(spec, tmp_path, on_video=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6) and told.count((0, 6)) == 1
    assert (tmp_path / "videos" / "train" / "v_train_0000.mp4").read_bytes()[:2000] == head


def test_a_video_comes_out_the_same_each_time(tmp_path: Path) -> None:
    videos = plan_trimmed(DatasetSpec())["train"]
    # x264 with its macroblock tree writes each of these differently within four calls.
    for video in (videos[2], videos[14], videos[30]):
        paths = [tmp_path / f"{video.name}-{turn}.mp4" for turn in range(5)]
        for path in paths:
            render_video(video, path)
        assert len({path.read_bytes() for path in paths}) == 1
