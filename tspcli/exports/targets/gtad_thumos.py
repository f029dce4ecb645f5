"""G-TAD's branch ``master`` (THUMOS14): four HDF5 files, one row per original frame."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from tspcli.annotations import Segment
from tspcli.annotations.write import write_thumos_table
from tspcli.core.files import require_room
from tspcli.errors import ExportError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import OWN_FILES, Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer
from tspcli.exports.toolkit import original_rate, shell

PARTS = ("val", "test")


class _FourFiles(Writer):
    """``flow_val.h5``, ``rgb_val.h5``, ``flow_test.h5``, ``rgb_test.h5``; the reader opens all."""

    def __init__(self, folder: Path, options: ExportOptions, dim: int) -> None:
        self._folder = folder
        self._n_videos = 0
        self._flow = options.flow
        self._split = options.split_channels or dim // 2
        self._files = {
            (stream, part): h5py.File(folder / f"{stream}_{part}.h5", "w")
            for stream in ("flow", "rgb")
            for part in PARTS
        }

    def write(self, video: PlannedVideo, rows: Array) -> None:
        part = part_of(video.name)
        # The reader puts flow first, so that a split restores the order of the channels.
        if self._flow == "split":
            flow, rgb = rows[:, : self._split], rows[:, self._split :]
        elif self._flow == "zeros":
            flow, rgb = np.zeros_like(rows), rows
        else:
            flow, rgb = rows[:, :0], rows
        self._n_videos += 1
        require_room(self._folder / part, flow.nbytes + rgb.nbytes, 2 * self._n_videos)
        for stream, array in (("flow", flow), ("rgb", rgb)):
            dataset = self._files[stream, part].create_dataset(video.name, data=array)
            dataset.attrs["rows_per_second"] = video.rate or 0.0
            dataset.attrs["source_key"] = video.source.key

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class GtadThumos(Target):
    """G-TAD on THUMOS14. Row i stands for frame i of the original video."""

    accepts = frozenset({"row_rate", "resize", "flow", "split_channels"})
    defaults: ClassVar = {"row_rate": "original", "resize": "centers", "flow": "split"}

    def check(self, plan: ExportPlan) -> None:
        for video in plan.videos:
            part_of(video.name)
        split = plan.options.split_channels
        if split is not None and (plan.options.flow != "split" or split >= plan.dim):
            raise ExportError(
                f"--split-channels {split} does not split features of width {plan.dim}.",
                remedy=f"Use --flow split and a number below {plan.dim}.",
                option="--split-channels",
                value=split,
            )
        unnumbered = [v.name for v in plan.videos if not v.name[-4:].isdigit()]
        if unnumbered:
            plan.notes.append(
                "G-TAD's post-processing reads the last four characters of a name as a number; "
                f"{unnumbered[0]!r} has no number there."
            )
        if plan.annotations is None:
            plan.notes.append(
                "Without --annotations the frame rates are those of the video files. G-TAD counts "
                "in the frames of its own tables, whose rates must be the same."
            )

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return _FourFiles(main, plan.options, plan.dim)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        # The reader counts in frames of the annotations, which are at the original rate.
        rate = original_rate(video) or video.rate or float("nan")
        return {"frames": Clock(video.shown_s, np.arange(video.n_rows) / rate)}

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        tables: dict[str, list[tuple[str, tuple[Segment, ...], float]]] = {p: [] for p in PARTS}
        for video in plan.videos:
            if video.annotated is None:
                continue
            rate = original_rate(video) or video.rate
            assert rate is not None
            entry = (video.annotation_name, video.annotated.segments, rate)
            tables[part_of(video.name)].append(entry)
        if not plan.has_entries([s for videos in tables.values() for v in videos for s in v[1]]):
            return []
        paths = []
        for part, videos in tables.items():
            if videos:
                paths.append(folder / f"{part}_Annotation.csv")
                write_thumos_table(paths[-1], videos)
        labels = plan.annotations.labels if plan.annotations else []
        if labels and "Ambiguous" not in labels and tables["test"]:
            plan.notes.append(
                "test_Annotation.csv has no class 'Ambiguous'. G-TAD's post-processing drops the "
                "class with the lowest number, taking it for that one; give it the published table."
            )
        return paths

    def usage(self, plan: ExportPlan) -> Usage:
        width = 2 * plan.width if plan.options.flow == "zeros" else plan.width
        # G-TAD opens both tables, so it cannot use a folder with only one of them.
        both = all(f"{part}_Annotation.csv" in plan.written for part in PARTS)
        folder = plan.annotation_folder if both else OWN_FILES
        lines = [
            "In a checkout of G-TAD's branch master:",
            f"  python gtad_train.py --feature_path {shell(plan.out)} --feat_dim {width} \\",
            f"    --video_info {shell(folder, '/')} --video_anno {shell(folder, '/')} --override",
            "The same switches for gtad_inference.py and gtad_postprocess.py.",
            f"Delete {folder}/saved.*.pkl first (or keep --override on): G-TAD caches windows "
            "there under names that do not depend on the features, and would use old ones.",
            "TSP's authors used 10 times the default learning rate here.",
        ]
        return Usage("\n".join(lines))


def part_of(name: str) -> str:
    """The file in which the reader looks for a video: it asks for ``val``, then for ``test``.

    Raises:
        ExportError: If the name has neither; the reader would silently take another video's rows.
    """
    for part in PARTS:
        if part in name:
            return part
    raise ExportError(
        f"G-TAD finds a video's file by 'val' or 'test' in its name; {name!r} has neither, and "
        "would get the previous video's features.",
        remedy="Use --name-prefix add:val_ or add:test_.",
        video=name,
        option="--name-prefix",
    )
