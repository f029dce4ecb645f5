"""Ego4D's episodic memory: one torch file per video, which its own scripts cut into clips."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.exports.export_plan import OWN_FILES, Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer
from tspcli.exports.toolkit import shell

ROW_S = 16 / 30
"""``FEATURE_WINDOW_SIZE`` over ``CANONICAL_VIDEO_FPS``; hard-coded in the readers."""


class TorchWriter(Writer):
    """One ``.pt`` file per video: its rows as a tensor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, video: PlannedVideo, rows: Array) -> None:
        import torch

        torch.save(torch.from_numpy(rows), self.folder / f"{video.name}.pt")


class Ego4D(Target):
    """Readers that take row i for the seconds i * 16/30 to (i + 1) * 16/30.

    Files are per video; ``prepare_ego4d_dataset.py`` (VSLNet) and ActionFormer's
    ``convert_ego4d_trainval.py`` cut out the clips that the annotations are of. The published rows
    are of 32 frames, whose centre is half a row later; such rows stay as they are.
    """

    defaults: ClassVar = {"grid_s": ROW_S}

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return TorchWriter(main)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return {"rows": Clock(video.shown_s, (np.arange(video.n_rows) + 0.5) * ROW_S)}

    def usage(self, plan: ExportPlan) -> Usage:
        return Usage(
            "In NLQ/VSLNet of a checkout of Ego4D's episodic-memory, where it cuts the videos into "
            "clips:\n"
            "  python utils/prepare_ego4d_dataset.py \\\n"
            f"    --video_feature_read_path {shell(plan.out)} \\\n"
            "    --clip_feature_save_path data/features/nlq_official_v1/tsp \\\n"
            "    --output_save_path data/dataset/nlq_official_v1 \\\n"
            + " \\\n".join(
                f"    --input_{split}_split {OWN_FILES / f'nlq_{split}.json'}"
                for split in ("train", "val", "test")
            )
            + f"\nand main.py with --fv tsp --video_feature_dim {plan.width}. Files are called "
            "after the video's UID (video_uid); one that is missing ends the script."
        )
