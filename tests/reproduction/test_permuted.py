"""The control changes which segments are called action, and nothing else."""

from __future__ import annotations

import numpy as np

from reproduction.permuted import permute_regions
from tspcli.annotations import GroundTruthRow
from tspcli.pretraining.training_segments import build_segments


def rows(video: int) -> list[GroundTruthRow]:
    labels = ("bounce", None, "bounce", None, None, "bounce", None, None)
    return [
        GroundTruthRow(f"v{video}", 2.0 * i, 2.0 * i + 2.0, label, 16.0, f"v{video}.mp4", 15.0, 240)
        for i, label in enumerate(labels)
    ]


def test_region_labels_move_within_their_video_alone() -> None:
    before = build_segments(
        [row for video in range(20) for row in rows(video)],
        ["bounce"],
        clip_length=16,
        frame_rate=15.0,
    )
    after = permute_regions(before)
    assert (after.region != before.region).any()
    for video in range(20):
        own = before.video == video
        assert sorted(after.region[own]) == sorted(before.region[own])
    for name in ("video", "start_s", "end_s", "action"):
        assert np.array_equal(getattr(after, name), getattr(before, name))
    assert np.array_equal(permute_regions(before).region, after.region)
