"""The layout of the released TSP features: one HDF5 file, or one for each subset."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

from tspcli.errors import AnnotationError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer
from tspcli.exports.toolkit import names_file, open_hdf5

_FILES = {"training": "train", "validation": "valid", "testing": "test"}


class _BySubset(Writer):
    """A file for each subset."""

    def __init__(self, plan: ExportPlan, folder: Path) -> None:
        self._subsets = {v.source.key: _subset(v) for v in plan.videos}
        self._files = {
            subset: open_hdf5(plan, "official", folder / f"{subset}_features.h5", compressed=True)
            for subset in sorted(set(self._subsets.values()))
        }

    def write(self, video: PlannedVideo, rows: Array) -> None:
        self._files[self._subsets[video.source.key]].write(video, rows)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class Official(Target):
    """Official TSP: clip i of a video is row i, its centre at ``(i * stride + 8) / 15`` s."""

    accepts = frozenset({"per_subset"})
    trains = False

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return names_file(out) and not options.per_subset

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        if plan.options.per_subset:
            return _BySubset(plan, main)
        path = main if self.is_file(plan.options, plan.out) else main / "features.h5"
        return open_hdf5(plan, self.name, path, compressed=True)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        source = video.source
        stride = source.sampling.stride
        half = float(source.sampling.center_offset)
        rate = float(source.sampling.frame_rate)
        assigned = [(i * stride + half) / rate for i in range(video.n_rows)]
        return {"rows": Clock(video.shown_s, video.shown_s * 0 + assigned)}

    def usage(self, plan: ExportPlan) -> Usage:
        sampling = plan.require_sampling()
        return Usage(
            "One dataset per video at the root, rows in time order.\n"
            f"Row i shows the clip whose centre is at (i * {sampling.stride} + "
            f"{float(sampling.center_offset):g}) / {float(sampling.frame_rate):g} s."
        )


def _subset(video: PlannedVideo) -> str:
    subset = video.annotated.subset if video.annotated else None
    if subset is None:
        raise AnnotationError(
            f"The annotations give no subset for {video.source.key!r}.",
            remedy="Add --annotations that give it, or export to one file.",
            video=video.source.key,
            option="--per-subset",
        )
    return _FILES[subset]
