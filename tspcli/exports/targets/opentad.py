"""OpenTAD: npy files, ``missing_files.txt``, annotations in ActivityNet's JSON, a configuration."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.annotations import Segment
from tspcli.annotations.data_sets import DataSet
from tspcli.annotations.write import DatabaseEntry, write_database
from tspcli.core.text import counted
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.opentad_config import SLIDING_S, Base, Times, Written, base_of, configuration
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import (
    NpyWriter,
    by_subset,
    note_few_classes,
    note_other_durations,
    one_stream,
    refuse_length,
    written_classes,
)
from tspcli.sampling import resampling

LENGTH = 192
"""``resize_length`` of its ActionFormer configuration; others have 96 to 256."""

PAD_LENGTH = 768
MISSING = "missing_files.txt"
CONFIG = "opentad.py"
_HALF_EXACT = 2048


class OpenTad(Target):
    """OpenTAD, which exits without an error at any feature that it cannot read."""

    accepts = frozenset({"length", "resize", "suffix", "pad_channels"})
    defaults: ClassVar = {"missing": "list"}

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        options = super().resolve(options, data_set)
        if base_of(data_set.name, ()).kind != "resize":
            refuse_length(options, "OpenTAD", data_set)
        return options

    def wants_prefix(self, data_set: DataSet) -> bool:
        return bool(data_set.id_prefix)

    def annotation_name(self, name: str, prefix: str) -> str:
        return name.removeprefix(prefix)

    def check(self, plan: ExportPlan) -> None:
        base = _base(plan)
        if plan.options.length is None:
            plan.require_even_rows()
        if base.kind != "resize":
            plan.require_sampling()
        if base.is_agnostic:
            note_few_classes(plan, "OpenTAD")
        if base.kind != "resize":
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
        times = Times.of(video.source.sampling)
        if _base(plan).kind != "resize":
            frames = np.arange(video.n_rows) * times.stride + times.offset
            return {"pad": Clock(video.shown_s, frames / times.fps)}
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
            frames = np.arange(n_padded) * times.stride + times.offset
            padded = resampling.linear(video.n_rows, n_padded).times_s(video.shown_s)
            clocks["pad"] = Clock(padded, frames * scale / times.fps)
        return clocks

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        entries, late = [], []
        base = _base(plan)
        for video, subset, segments in by_subset(plan, "OpenTAD"):
            # OpenTAD's own padded configurations divide frame by duration, so this is the rate of
            # the sampling.
            frames = float(video.source.sampling.frame_rate) * video.length_s
            if base.kind != "resize" and segments and not _is_loaded(video, segments):
                late.append(video.annotation_name)
            entries.append(
                DatabaseEntry(
                    video.annotation_name,
                    base.word(subset),
                    video.length_s,
                    segments,
                    frame=_whole(frames),
                )
            )
        if not plan.has_entries([s for entry in entries for s in entry.segments]):
            return []
        if late:
            plan.notes.append(
                f"OpenTAD's loader leaves out {counted(len(late), 'video')} whose actions all end "
                f"before the centre of the first row (the first: {late[0]!r})."
            )
        path = folder / f"{plan.data_set.name}.json"
        write_database(path, entries, None)
        class_map = folder / "category_idx.txt"
        names = "".join(f"{label}\n" for label in written_classes(plan, "OpenTAD"))
        class_map.write_text(names, encoding="utf-8")
        return [path, class_map]

    def usage(self, plan: ExportPlan) -> Usage:
        base = _base(plan)
        written = Written(
            annotations=str(plan.annotation_file(f"{plan.data_set.name}.json")),
            class_map=str(plan.annotation_file("category_idx.txt")),
            features=f"{plan.out}/",
            missing=str(plan.out / MISSING),
            prefix=plan.prefix,
            suffix=plan.options.suffix,
            width=plan.width,
            n_classes=len(written_classes(plan, "OpenTAD")) if plan.written else None,
            max_rows=plan.max_rows,
            title=plan.data_set.title or plan.data_set.name,
        )
        sampling = plan.sampling
        if base.kind == "resize" or sampling is None:
            times, rows = None, plan.options.length or LENGTH
        else:
            times, rows = Times.of(sampling), base.window_rows(sampling, plan.max_rows)
        config = configuration(base, written, times, rows)
        lines = [
            f"{CONFIG} is a configuration for {written.title} (--data-set chooses another). In a "
            "checkout of OpenTAD:",
            "  OPENTAD=$PWD torchrun --nnodes=1 --nproc_per_node=1 \\\n"
            f"      tools/train.py {plan.companions / CONFIG}",
        ]
        lines += self._explained(plan, base, rows)
        return Usage("\n".join(lines), {CONFIG: config})

    def _explained(self, plan: ExportPlan, base: Base, rows: int) -> list[str]:
        sampling = plan.sampling
        lines = [f"It inherits configs/{base.config}."]
        if base.is_agnostic:
            lines.append(
                "That finds proposals and takes their classes from the scores in "
                "post_processing.external_cls, which come with OpenTAD's data, as does what else "
                "it names below data/."
            )
        if base.kind != "resize" and sampling is not None:
            step_s = float(sampling.stride_s)
            lines.append(
                f"Windows have {rows} rows, {rows * step_s:.1f} s. In configurations that slide, "
                f"{SLIDING_S:.1f} s are window_size={round(SLIDING_S / step_s)}."
            )
            lines.append(
                f"Loader: {Times.of(sampling).line()}. OpenTAD's loaders for THUMOS14, Charades, "
                "EPIC-Kitchens and Ego4D round labels down to whole frames "
                f"(1/{float(sampling.frame_rate):g} s here) where fps is frame / duration; the "
                "one in this configuration does not."
            )
        elif plan.options.length is not None:
            lines.append(
                f"The rows are resized to {plan.options.length}; do not use configurations that "
                "pad with them."
                + f" ActionFormer's needs a multiple of {base.multiple}."
                * (plan.options.length % base.multiple > 0)
            )
        elif sampling is not None:
            lines.append(
                "The rows are not resized, so configurations that pad work, too, with "
                f"{Times.of(sampling).line()}."
            )
        lines.append(
            "If videos are added later, run OpenTAD's generate_missing_list.py with --prefix "
            f"'{plan.prefix}'; its default lists every video as missing."
        )
        return lines


def _base(plan: ExportPlan) -> Base:
    return base_of(plan.data_set.name, plan.data_set.tious)


def _is_loaded(video: PlannedVideo, segments: tuple[Segment, ...]) -> bool:
    """Whether the padded loader keeps an action of a video, and with it the video."""
    first_s = video.source.first_s
    return any(s.end_s > first_s and s.end_s > s.start_s for s in segments)


def _whole(value: float) -> float:
    """A frame count as an integer where it is one."""
    return round(value) if abs(value - round(value)) < 1e-9 else value
