"""G-TAD's branch ``anet``: one HDF5 file with all videos of all subsets."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

from tspcli.errors import ExportError
from tspcli.exports import bsn_dialect as bsn
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import ExportPlan, PlannedVideo
from tspcli.exports.target import Usage, Writer
from tspcli.exports.toolkit import (
    annotation_switches,
    names_file,
    note_cut_names,
    note_other_durations,
    open_hdf5,
    shell,
)
from tspcli.sampling import resampling
from tspcli.sampling.resampling import FloatArray

SCALE = 100
"""Steps to which the loader resizes every video."""


class GtadAnet(bsn.BsnTarget):
    """G-TAD on ActivityNet. The loader resizes to 100 steps itself (linear, half-pixel)."""

    accepts = frozenset({"length", "resize", "feature_frame", "pad_channels"})
    result_span = bsn.whole_video

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return names_file(out)

    def check(self, plan: ExportPlan) -> None:
        if plan.width % 4:
            raise ExportError(
                f"G-TAD needs a feature width divisible by 4, not {plan.width}.",
                remedy=f"Add --pad-channels {-(-plan.width // 4) * 4}.",
                option="--pad-channels",
                value=plan.width,
            )
        if plan.width == SCALE and any(v.n_rows != SCALE for v in plan.videos):
            raise ExportError(
                "G-TAD takes features of width 100 to be resized already and keeps their length.",
                remedy="Add --length 100, or --pad-channels 104.",
                option="--length",
                value=plan.width,
            )
        note_cut_names(plan)
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        path = main if self.is_file(plan.options, plan.out) else main / "features.hdf5"
        return open_hdf5(plan, self.name, path)

    def shown_s(self, video: PlannedVideo) -> FloatArray:
        return resampling.linear(video.n_rows, SCALE).times_s(video.shown_s)

    def usage(self, plan: ExportPlan) -> Usage:
        is_file = self.is_file(plan.options, plan.out)
        path = plan.out if is_file else plan.out / "features.hdf5"
        lines = [
            "In a checkout of G-TAD's branch anet:",
            f"  python gtad_train.py --feature_path {shell(path)} --feat_dim {plan.width} \\",
            f"    --temporal_scale {SCALE}{annotation_switches(plan)}",
            "Give the same switches to gtad_inference.py and gtad_postprocess.py. The path must "
            "not end in a slash.",
        ]
        return Usage("\n".join(lines))
