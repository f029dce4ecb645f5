"""Online action detection (LSTR, TeSTra, MAT): four rows a second, and targets for each row."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tspcli.annotations import AMBIGUOUS
from tspcli.annotations.data_sets import DataSet
from tspcli.annotations.write import THUMOS14_TYPE_IDX, write_json
from tspcli.errors import ExportError, UsageError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer
from tspcli.exports.toolkit import all_classes, by_subset, frame_classes
from tspcli.sampling.resampling import FloatArray

RATE = 4
"""``fps`` of data_info.json: rows per second."""

BACKGROUND = "Background"
MOTION, MOTION_WIDTH = "flow_kinetics_bninception", 1024
TARGETS_FOLDER = "target_perframe"
INFO = "data_info.json"
_VISUAL = {2048: "rgb_kinetics_resnet50", 1024: "rgb_kinetics_bninception"}
_KNOWN = {*_VISUAL.values(), MOTION}


class _Streams(Writer):
    """The folders of the visual and of the motion features."""

    def __init__(self, main: Path, plan: ExportPlan) -> None:
        self._visual, self._motion = main / _visual_name(plan), main / MOTION
        self._visual.mkdir()
        self._motion.mkdir()
        self._n_visual = _visual_width(plan)
        self._splits = plan.options.flow == "split"

    def write(self, video: PlannedVideo, rows: Array) -> None:
        visual, motion = rows[:, : self._n_visual], rows[:, self._n_visual :]
        if not self._splits:
            motion = np.zeros((len(rows), MOTION_WIDTH), rows.dtype)
        for folder, array in ((self._visual, visual), (self._motion, motion)):
            np.save(folder / f"{video.name}.npy", np.ascontiguousarray(array))


class Online(Target):
    """Readers of ``data_info.json``. Row i is the quarter of a second that begins at i/4 s.

    They load a file of motion features for every video, so there is one: zeros, or the channels
    that follow --split-channels.
    """

    accepts = frozenset({"flow", "split_channels"})
    defaults: ClassVar = {"flow": "zeros", "grid_s": 1 / RATE}

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        options = super().resolve(options, data_set)
        if options.flow == "empty":
            raise UsageError(
                "The readers index the motion features by row, so they cannot be empty.",
                remedy="Use --flow zeros.",
                option="--flow",
                value="empty",
            )
        if options.split_channels is not None and options.flow != "split":
            raise UsageError(
                "--split-channels has no effect without --flow split.", option="--split-channels"
            )
        return options

    def check(self, plan: ExportPlan) -> None:
        if not 0 < _visual_width(plan) < plan.width + (plan.options.flow != "split"):
            raise ExportError(
                f"--split-channels {_visual_width(plan)} leaves no motion features of rows of "
                f"width {plan.width}.",
                option="--split-channels",
                value=_visual_width(plan),
            )

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return _Streams(main, plan)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return {"rows": Clock(video.shown_s, _times_s(video))}

    def write_extras(self, plan: ExportPlan, main: Path) -> None:
        if plan.annotations is None:
            return
        videos = by_subset(plan, "online detection")
        if not plan.has_entries([s for _, _, segments in videos for s in segments]):
            return
        classes = _classes(plan)
        sessions: dict[str, list[str]] = {"train": [], "test": []}
        (main / TARGETS_FOLDER).mkdir()
        for video, subset, _ in videos:
            targets = np.zeros((video.n_rows, len(classes)), np.float32)
            segments = video.annotated.segments if video.annotated else ()
            for label, there in frame_classes(segments, _times_s(video)):
                targets[there, classes.index(label)] = 1
            targets[:, 0] = targets.sum(1) == 0
            np.save(main / TARGETS_FOLDER / f"{video.name}.npy", targets)
            sessions["train" if subset == "training" else "test"].append(video.name)
        info: dict[str, Any] = {
            "data_root": str(plan.out),
            "class_names": classes,
            "num_classes": len(classes),
            "ignore_index": classes.index(AMBIGUOUS) if AMBIGUOUS in classes else -100,
            "metrics": "AP",
            "fps": RATE,
            "train_session_set": sessions["train"],
            "test_session_set": sessions["test"],
        }
        # The only name beside TVSeries under which the readers' parts are registered.
        write_json(main / INFO, {"THUMOS": info})

    def usage(self, plan: ExportPlan) -> Usage:
        visual = _visual_name(plan)
        both = plan.options.flow == "split"
        lines = ["In a checkout of LSTR or TeSTra:"]
        if plan.annotations is not None:
            lines += [
                "  python tools/train_net.py --config_file configs/THUMOS/LSTR/"
                "lstr_long_512_work_8_kinetics_1x.yaml \\",
                f"    DATA.DATA_INFO {plan.out / INFO} \\",
            ]
        else:
            lines += [
                "  python tools/train_net.py --config_file configs/THUMOS/LSTR/"
                "lstr_long_512_work_8_kinetics_1x.yaml \\",
                f"    DATA.DATA_ROOT {plan.out} \\",
            ]
        lines.append(
            f"    INPUT.VISUAL_FEATURE {visual} INPUT.MOTION_FEATURE {MOTION} "
            f"INPUT.MODALITY {'twostream' if both else 'visual'}"
        )
        sizes = {visual: _visual_width(plan)}
        if both and plan.width - _visual_width(plan) != MOTION_WIDTH:
            sizes[MOTION] = plan.width - _visual_width(plan)
        if sizes.keys() - _KNOWN or len(sizes) > 1:
            lines.append(f"Add to FEATURE_SIZES in models/feature_head.py: {sizes}.")
        if plan.annotations is None:
            lines.append(
                "target_perframe/ has as many rows as the features; it and data_info.json are "
                "written where --annotations are given."
            )
        return Usage("\n".join(lines))


def _visual_width(plan: ExportPlan) -> int:
    if plan.options.flow != "split":
        return plan.width
    return plan.options.split_channels or plan.width // 2


def _visual_name(plan: ExportPlan) -> str:
    return _VISUAL.get(_visual_width(plan), "rgb_tspcli")


def _classes(plan: ExportPlan) -> list[str]:
    """Background, the classes, and THUMOS14's ambiguous stretches if there are any."""
    if plan.data_set.name == "thumos14":
        classes = [label for label in THUMOS14_TYPE_IDX if label != AMBIGUOUS]
        return [BACKGROUND, *sorted({*classes, *all_classes(plan)}), AMBIGUOUS]
    segments = (s for v in plan.videos if v.annotated for s in v.annotated.segments)
    ambiguous = any(segment.label == AMBIGUOUS for segment in segments)
    return [BACKGROUND, *all_classes(plan), *[AMBIGUOUS] * ambiguous]


def _times_s(video: PlannedVideo) -> FloatArray:
    return (np.arange(video.n_rows) + 0.5) / RATE
