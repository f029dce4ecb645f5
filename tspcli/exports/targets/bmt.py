"""BMT: two npy files per video, "rgb" and "flow", which its model adds."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.annotations import Annotations
from tspcli.annotations.data_sets import DataSet
from tspcli.annotations.write import write_bmt
from tspcli.errors import AnnotationError, ExportError, UsageError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer
from tspcli.exports.toolkit import (
    NO_CAPTIONS,
    NpyWriter,
    captions_by_name,
    note_other_durations,
    shell,
)
from tspcli.sampling.resampling import bin_centers_s

WIDTH = 1024
"""What the captioning loader puts in place of a missing video or an empty crop; hard-coded."""

I3D_TIMESPAN = (64, 25)
"""Defaults of --feature_timespan_in_fps and --fps_at_extraction: 2.56 s per row."""

_PAD_ROWS, _I3D_PAD_ROWS = 800, 300
_POSITIONS = 3660
_MASKED = 1.0

PHASES = ("train", "val_1", "val_2")
"""Its phases, with a switch ``--PHASE_meta_path`` for each."""

_PHASE_OF = {"training": "train", "validation": "val_1"}


class Bmt(Target):
    """BMT on ActivityNet Captions.

    Flow is zeros of rgb's shape, so that their sum is the feature. Channels are padded to 1024,
    without which its captioning stops at two rows of its own training table.
    """

    accepts = frozenset({"grid_s", "flow", "pad_channels"})
    defaults: ClassVar = {"flow": "zeros", "pad_channels": WIDTH}

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        options = super().resolve(options, data_set)
        if options.flow != "zeros":
            raise UsageError(
                f"BMT adds rgb and flow, which must have one shape, so --flow {options.flow} "
                "would change or break the features.",
                remedy="Use --flow zeros.",
                option="--flow",
                value=options.flow,
            )
        return options

    def wants_prefix(self, data_set: DataSet) -> bool:
        return True

    def check(self, plan: ExportPlan) -> None:
        if plan.options.pad_channels and plan.dim > plan.options.pad_channels:
            raise ExportError(
                f"The features are {plan.dim} wide and cannot be padded to "
                f"{plan.options.pad_channels}.",
                remedy=f"Use --pad-channels 0, --d_vid {plan.dim} in BMT, and change the width "
                "1024 in its datasets/captioning_dataset.py.",
                option="--pad-channels",
                value=plan.dim,
            )
        if plan.max_rows > _POSITIONS:
            longest = max(plan.videos, key=lambda video: video.n_rows)
            raise ExportError(
                f"BMT has {_POSITIONS} positions; {longest.source.key!r} has {longest.n_rows} "
                "rows.",
                remedy="Use --grid-seconds 2.56, or features at stride 16.",
                option="--grid-seconds",
                video=longest.source.key,
            )
        captions_by_name(plan, _phase)
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return NpyWriter(main, lambda rows: self._streams(rows, plan))

    def _streams(self, rows: Array, plan: ExportPlan) -> list[tuple[str, Array]]:
        masked = rows[:, 0] == _MASKED
        if masked.any():
            rows = rows.copy()
            rows[masked, 0] = np.nextafter(rows.dtype.type(_MASKED), rows.dtype.type(0))
            note = (
                "BMT takes a value of exactly 1 in channel 0 for padding; such values are written "
                "as the next smaller number."
            )
            if note not in plan.notes:
                plan.notes.append(note)
        return [("_rgb", rows), ("_flow", np.zeros_like(rows))]

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        timespan, rate = self._timespan(plan)
        shown = video.shown_s
        cells = (np.arange(video.n_rows) + 0.5) * (timespan / rate)
        return {
            "captioning": Clock(shown, bin_centers_s(video.n_rows, video.length_s)),
            "proposals": Clock(shown, cells),
        }

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        paths = []
        for phase, captions in captions_by_name(plan, _phase).items():
            paths.append(folder / f"{phase}.csv")
            write_bmt(paths[-1], captions, phase)
        if not paths:
            plan.notes.append(NO_CAPTIONS)
        return paths

    def usage(self, plan: ExportPlan) -> Usage:
        timespan, rate = self._timespan(plan)
        default = (timespan, rate) == I3D_TIMESPAN
        least = _I3D_PAD_ROWS if default else _PAD_ROWS
        pad = least if plan.max_rows <= least else -(-plan.max_rows // 100) * 100
        switches = (
            f"--d_vid {plan.width} --feature_timespan_in_fps {timespan} "
            f"--fps_at_extraction {rate} --pad_video_feats_up_to {pad}"
        )
        lines = [
            "In a checkout of BMT, for captioning and for proposals alike:",
            "  python main.py --procedure train_cap \\",
            f"    --video_features_path {shell(plan.out, '/')} \\",
            f"    {switches}",
        ]
        if plan.written:
            metas = " ".join(
                f"--{Path(name).stem}_meta_path {shell(plan.annotation_file(name))}"
                for name in sorted(plan.written)
            )
            lines[-1] += " \\"
            lines.append(f"    {metas}")
        lines += [
            "Without audio features (v_ID.npy from VGGish) add --modality video: with audio_video "
            "and no audio, the proposal set is empty.",
            "Delete BMT's ./tmp: it caches which videos exist, and their targets, under names "
            "that do not depend on the features.",
        ]
        if plan.width != WIDTH:
            lines.append(
                f"Width {plan.width}: BMT's datasets/captioning_dataset.py puts zeros of width "
                f"{WIDTH} in place of missing videos and empty crops; change the constant, or "
                "leave --pad-channels as it is by default."
            )
        return Usage("\n".join(lines))

    @staticmethod
    def _timespan(plan: ExportPlan) -> tuple[int, int]:
        """Values of BMT's two whole-number switches, whose quotient is the seconds per row."""
        if plan.options.grid_s is not None:
            ratio = _fraction(plan.options.grid_s)
            return I3D_TIMESPAN if ratio * 25 == 64 else (ratio.numerator, ratio.denominator)
        sampling = plan.require_sampling()
        ratio = sampling.stride / sampling.frame_rate
        if sampling.frame_rate.denominator == 1:
            return sampling.stride, int(sampling.frame_rate)
        return ratio.numerator, ratio.denominator


def _fraction(seconds: float) -> Fraction:
    return Fraction(repr(seconds)).limit_denominator(1000)


def _phase(file: Annotations) -> str:
    """The phase of a caption file, as BMT's switches call it: train, val_1 or val_2.

    Raises:
        AnnotationError: If neither the file's name nor its videos' subset gives it.
    """
    for phase in PHASES:
        if file.stem.startswith(phase):
            return phase
    subsets = {video.subset for video in file.values()}
    if len(subsets) == 1 and (phase_of_subset := _PHASE_OF.get(subsets.pop() or "")):
        return phase_of_subset
    raise AnnotationError(
        f"BMT has captions of {', '.join(PHASES)}; the name of {file.path} is not one of them.",
        remedy="Name it so, such as train.csv, or use --subset.",
        path=file.path,
    )
