"""G-TAD's branch ``anet``: one HDF5 file with all videos of all subsets."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

from tspcli.errors import ExportError
from tspcli.exports import bsn_dialect as bsn
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.target import ExportPlan, PlannedVideo, Usage, Writer, shell
from tspcli.exports.toolkit import names_file, open_hdf5
from tspcli.sampling import resampling
from tspcli.sampling.resampling import FloatArray

SCALE = 100
"""Steps to which the loader resizes every video."""


class GtadAnet(bsn.BsnTarget):
    """G-TAD on ActivityNet. The loader resizes to 100 steps itself (linear, half-pixel)."""

    name = "gtad-anet"
    summary = "G-TAD, branch anet: one HDF5 file, which ActionFormer reads too"
    accepts = frozenset({"length", "resize", "feature_frame", "pad_channels"})
    result_span = bsn.whole_video

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return names_file(out)

    def check(self, plan: ExportPlan) -> None:
        if plan.width % 4:
            raise ExportError(
                f"G-TAD needs a feature width that 4 divides; this one is {plan.width}.",
                remedy=f"Add --pad-channels {-(-plan.width // 4) * 4}.",
            )
        if plan.width == SCALE and any(v.n_rows != SCALE for v in plan.videos):
            raise ExportError(
                "G-TAD takes features of width 100 for resized ones and leaves their length alone.",
                remedy="Add --length 100, or --pad-channels 104.",
            )
        warn_of_cut_names(plan)
        warn_of_uncovered(plan)

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


def annotation_switches(plan: ExportPlan) -> str:
    """The switches of G-TAD and BMN that name the written annotations."""
    return (
        f" \\\n    --video_info {shell(plan.annotation_file('video_info_new.csv'))} "
        f"--video_anno {shell(plan.annotation_file('anet_anno_action.json'))}"
    )


def warn_of_cut_names(plan: ExportPlan) -> None:
    """These readers cut two characters off each name in their results, whatever they are."""
    bare = [video.name for video in plan.videos if not video.name.startswith("v_")]
    if bare:
        plan.notes.append(
            f"The reader cuts the first two characters off names in its results, and {len(bare)} "
            f"names do not start with v_ (the first: {bare[0]!r})."
        )


def warn_of_uncovered(plan: ExportPlan) -> None:
    """Tell of videos whose rows end well before the annotated end."""
    short = []
    for video in plan.videos:
        clip_s = float(video.source.sampling.clip_duration_s)
        gap = (video.duration_s or 0.0) - video.source.covered_s
        if gap > clip_s + 2 * video.source.step_s:
            short.append((gap, video.name))
    if short:
        gap, name = max(short)
        plan.notes.append(
            f"The features of {len(short)} videos end well before the annotated end; the most, "
            f"{gap:.1f} s, of {name!r}. Their rows are off by as much there."
        )
