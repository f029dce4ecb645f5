"""OpenTAD: npy files, ``missing_files.txt``, annotations in ActivityNet's JSON."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.annotations.dialects import Dialect
from tspcli.annotations.write import DatabaseEntry, write_database
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import NpyWriter, by_subset, note_other_durations, one_stream
from tspcli.sampling import resampling

LENGTH = 192
"""``resize_length`` of its ActionFormer configuration; others have 96 to 256."""

PAD_LENGTH = 768
MISSING = "missing_files.txt"
_HALF_EXACT = 2048


class OpenTad(Target):
    """OpenTAD, which exits without an error at any feature that it cannot read."""

    accepts = frozenset({"length", "resize", "suffix", "pad_channels"})
    defaults: ClassVar = {"missing": "list"}

    def wants_prefix(self, data_set: Dialect) -> bool:
        return bool(data_set.id_prefix)

    def annotation_name(self, name: str, prefix: str) -> str:
        return name.removeprefix(prefix)

    def check(self, plan: ExportPlan) -> None:
        if not plan.data_set.resized:
            return
        if plan.max_rows > _HALF_EXACT:
            plan.notes.append(
                f"The longest video has {plan.max_rows} rows. OpenTAD's resizing works in half "
                f"precision, where lengths above {_HALF_EXACT} are rounded."
            )
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return NpyWriter(main, one_stream(plan.options.suffix))

    def write_extras(self, plan: ExportPlan, main: Path) -> None:
        # The configurations open it unconditionally, so it is there even when nothing is missing.
        text = "".join(f"{name}\n" for name in plan.missing)
        (main / MISSING).write_text(text, encoding="utf-8")

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        source = video.source
        rate = float(source.sampling.frame_rate)
        if not plan.data_set.resized:
            frames = np.arange(video.n_rows) * source.sampling.stride + _offset(video)
            return {"pad": Clock(video.shown_s, frames / rate)}
        steps = plan.options.length or LENGTH
        # Lengths and values go through half precision in the reader; the length matters for time.
        n_rows = float(np.float16(video.n_rows))
        aligned = resampling.roi_align_over(video.n_rows, n_rows, steps)
        shown = aligned.times_s(video.shown_s)
        clocks = {"resize": Clock(shown, resampling.bin_centers_s(steps, video.length_s))}
        if plan.options.length is None:
            # Longer videos are shrunk, and stride and offset scaled with them.
            n_padded = min(video.n_rows, PAD_LENGTH)
            scale = video.n_rows / n_padded
            frames = np.arange(n_padded) * source.sampling.stride + _offset(video)
            padded = resampling.linear(video.n_rows, n_padded).times_s(video.shown_s)
            clocks["pad"] = Clock(padded, frames * scale / rate)
        return clocks

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        entries = []
        for video, subset, segments in by_subset(plan, "OpenTAD"):
            # Padded data sets divide frame by duration, so this is the rate of the sampling.
            frames = float(video.source.sampling.frame_rate) * video.length_s
            entries.append(
                DatabaseEntry(
                    video.annotation_name, subset, video.length_s, segments, frame=_whole(frames)
                )
            )
        if not plan.has_entries([s for entry in entries for s in entry.segments]):
            return []
        path = folder / f"{plan.data_set.name}.json"
        write_database(path, entries, None)
        class_map = folder / "category_idx.txt"
        labels = sorted({s.label for entry in entries for s in entry.segments})
        class_map.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        return [path, class_map]

    def usage(self, plan: ExportPlan) -> Usage:
        values = {
            "annotation_path": str(plan.annotation_file(f"{plan.data_set.name}.json")),
            "class_map": str(plan.annotation_file("category_idx.txt")),
            "data_path": f"{plan.out}/",
            "block_list": str(plan.out / MISSING),
        }
        config = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        load = f'dict(type="LoadFeats", feat_format="npy", prefix="{plan.prefix}"'
        load += f', suffix="{plan.options.suffix}")' if plan.options.suffix else ")"
        config += f"# pipelines: {load}\n"
        sampling = plan.sampling
        if sampling is not None and plan.options.length is None:
            stride = f"feature_stride={sampling.stride}, sample_stride=1, "
            stride += f"offset_frames={sampling.clip_length // 2}"
            if not plan.data_set.resized:
                config += f"# datasets: {stride} (fps comes from frame / duration)\n"
            else:
                config += f"# padded datasets: {stride}, fps={float(sampling.frame_rate):g}\n"
        config += f"# model: projection=dict(in_channels={plan.width}, ...)\n"
        base = (
            "thumos-14/features_i3d_pad.py"
            if not plan.data_set.resized
            else "activitynet-1.3/features_tsp_resize_trunc.py and similar"
        )
        lines = [
            f"In configs/_base_/datasets/{base}, put this in place of the same names (opentad.py):",
            config,
            "Set evaluation.ground_truth_filename to the same annotation file.",
        ]
        if plan.options.length is not None:
            lines.append(
                f"The rows are resized: set resize_length to {plan.options.length}, and do not "
                "use the padded configurations with them."
            )
        elif plan.data_set.resized:
            lines.append("The rows are not resized: resizing and padding configurations both work.")
        lines.append(
            "If videos are added later, run OpenTAD's generate_missing_list.py with --prefix "
            f"'{plan.prefix}'; its default lists every video as missing."
        )
        return Usage("\n".join(lines), {"opentad.py": config})


def _offset(video: PlannedVideo) -> int:
    """``offset_frames``, which OpenTAD takes as a whole number."""
    return video.source.sampling.clip_length // 2


def _whole(value: float) -> float:
    """A frame count as an integer where it is one."""
    return round(value) if abs(value - round(value)) < 1e-9 else value
