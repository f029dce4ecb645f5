"""ActionFormer: npy files, or (ActivityNet) one HDF5 file whose path contains ``.hdf5``."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.annotations import AMBIGUOUS, Segment
from tspcli.annotations.write import DatabaseEntry, write_database
from tspcli.errors import AnnotationError, ExportError
from tspcli.exports.export_options import DataSet, ExportOptions
from tspcli.exports.target import Clock, ExportPlan, PlannedVideo, Target, Usage, Writer
from tspcli.exports.targets.gtad_anet import warn_of_uncovered
from tspcli.exports.toolkit import NpyWriter, one_stream, open_hdf5
from tspcli.sampling import resampling

LENGTH = 192
"""``max_seq_len`` of its ActivityNet configuration."""

THUMOS_LENGTH = 4608
"""``max_seq_len`` for rows at stride 1."""

_SUBSETS = {
    "activitynet": {"training": "training", "validation": "validation", "testing": "testing"},
    "thumos14": {"training": "Validation", "validation": "Test", "testing": "Test"},
}
_TRUNC_THRESH = 0.5


class ActionFormer(Target):
    """ActionFormer. Time comes from the number of rows, so they are best left as they are."""

    name = "actionformer"
    summary = "ActionFormer: v_ID.npy or one .hdf5 file, annotations with label_id, a YAML block"
    accepts = frozenset({"length", "resize", "container", "suffix", "pad_channels"})
    defaults: ClassVar = {"container": "npy"}

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        options = super().resolve(options, data_set)
        if options.container == "hdf5" and data_set == "thumos14":
            raise ExportError(
                "ActionFormer's THUMOS14 loader reads npy files only.",
                remedy="Use --container npy.",
            )
        if options.length is not None and data_set == "thumos14":
            raise ExportError(
                "ActionFormer's THUMOS14 loader takes time from a fixed stride, so rows cannot be "
                "resized.",
                remedy="Leave --length away.",
            )
        return options

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return options.container == "hdf5" and ".hdf5" in out.name

    def wants_prefix(self, data_set: DataSet) -> bool:
        return data_set == "activitynet"

    def annotation_name(self, name: str, prefix: str) -> str:
        return name.removeprefix(prefix)

    def check(self, plan: ExportPlan) -> None:
        path = str(self._feature_path(plan))
        if plan.options.container == "npy" and ".hdf5" in path:
            raise ExportError(
                f"ActionFormer takes a path with '.hdf5' in it ({path}) for a file.",
                remedy="Give another --out, or --container hdf5.",
            )
        if plan.options.container == "hdf5" and plan.options.suffix:
            raise ExportError(
                "--suffix is for file names, and this is one file.", remedy="Leave it away."
            )
        if plan.options.length is None:
            plan.require_sampling()
        else:
            warn_of_uncovered(plan)

    def _feature_path(self, plan: ExportPlan) -> Path:
        if plan.options.container == "hdf5" and not self.is_file(plan.options, plan.out):
            return plan.out / "features.hdf5"
        return plan.out

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        if plan.options.container == "hdf5":
            is_file = self.is_file(plan.options, plan.out)
            return open_hdf5(plan, self.name, main if is_file else main / "features.hdf5")
        return NpyWriter(main, one_stream(plan.options.suffix))

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        sampling = video.source.sampling
        stride, n_frames = sampling.stride, sampling.clip_length
        rate = float(sampling.frame_rate)
        if plan.data_set == "thumos14":
            assigned = (np.arange(video.n_rows) * stride + n_frames / 2) / rate
            return {"rows": Clock(video.shown_s, assigned)}
        steps = plan.options.length or LENGTH
        shown = resampling.linear(video.n_rows, steps).times_s(video.shown_s)
        if plan.options.length is None:
            step_frames = ((video.n_rows - 1) * stride + n_frames) / steps
        else:
            # Its case of features of fixed length: they span the annotated duration.
            step_frames = (video.duration_s or video.source.covered_s) * rate / steps
        return {"steps": Clock(shown, (np.arange(steps) + 0.5) * step_frames / rate)}

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        assert plan.annotations is not None
        words = _SUBSETS[plan.data_set]
        entries, dropped, unknown = [], [], []
        for video in plan.videos:
            if video.annotated is None:
                continue
            subset = video.annotated.subset
            if subset is None:
                unknown.append(video.annotation_name)
                continue
            if subset == "training" and not self._loads(video, plan):
                dropped.append(video.annotation_name)
                continue
            duration = video.duration_s or video.source.covered_s
            segments = classed(video.annotated.segments)
            entries.append(DatabaseEntry(video.annotation_name, words[subset], duration, segments))
        if unknown:
            raise AnnotationError(
                f"No annotation tells the subset of {len(unknown)} videos (the first: "
                f"{unknown[0]!r}); ActionFormer needs it.",
                remedy="Add a file that tells it, or --subset.",
            )
        if dropped:
            plan.notes.append(
                f"{len(dropped)} training videos without an action on their features are left out "
                f"of the annotations: ActionFormer stops at them (the first: {dropped[0]})."
            )
        if not plan.has_entries(entries):
            return []
        self._label_ids = label_ids(plan, entries)
        path = folder / f"{plan.data_set}.json"
        write_database(path, entries, self._label_ids)
        return [path]

    def _loads(self, video: PlannedVideo, plan: ExportPlan) -> bool:
        """Whether the training loader finds an action on the features; otherwise it stops."""
        assert video.annotated is not None
        if plan.data_set == "thumos14":
            return bool(classed(video.annotated.segments))
        steps = plan.options.length or LENGTH
        span = video.source.covered_s if plan.options.length is None else video.duration_s
        end = (span or video.source.covered_s) * (steps + 1) / steps
        return any(
            s.start_s < end
            and s.end_s > s.start_s
            and (min(s.end_s, end) - s.start_s) / (s.end_s - s.start_s) >= _TRUNC_THRESH
            for s in video.annotated.segments
        )

    _label_ids: dict[str, int] | None = None

    def usage(self, plan: ExportPlan) -> Usage:
        sampling = plan.sampling
        fixed = plan.options.length is not None
        thumos = plan.data_set == "thumos14"
        ids = self._label_ids or {}
        stride = -1 if fixed or sampling is None else sampling.stride
        frames = -1 if fixed or sampling is None else sampling.clip_length
        rate = 15.0 if sampling is None else float(sampling.frame_rate)
        values = {
            "json_file": plan.annotation_file(f"{plan.data_set}.json"),
            "feat_folder": self._feature_path(plan),
            "file_prefix": plan.prefix or "~",
            "file_ext": f"{plan.options.suffix}.npy",
            "num_classes": (len(ids) or 20) if thumos else 1,
            "input_dim": plan.width,
            "feat_stride": stride,
            "num_frames": frames,
            "default_fps": f"{rate:g}",
            "max_seq_len": THUMOS_LENGTH if thumos else plan.options.length or LENGTH,
        }
        if not thumos:
            values["force_upsampling"] = True
        block = "dataset: {\n" + "".join(f"  {k}: {_yaml(v)},\n" for k, v in values.items()) + "}\n"
        base = "configs/thumos_i3d.yaml" if thumos else "configs/anet_tsp.yaml"
        lines = [f"Put this in place of the same values in {base} (actionformer.yaml):", block]
        if not thumos:
            lines.append(
                "label_id is the position in the list of class names; where an external score "
                "file is used (ext_score_file), it must be that file's order: give it as "
                "--label-ids."
            )
        else:
            lines.append(
                "ActionFormer drops videos whose file it does not find without a word; the "
                "number of videos that it prints must be the number that you expect."
            )
        return Usage("\n".join(lines), {"actionformer.yaml": block})


def _yaml(value: object) -> str:
    """A value in YAML's flow style; text is quoted where it could mean something else."""
    text = str(value)
    return text if re.fullmatch(r"[\w./~-]*", text) else json.dumps(text)


def classed(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments with a class: THUMOS14's ambiguous stretches have none."""
    return tuple(segment for segment in segments if segment.label != AMBIGUOUS)


def label_ids(plan: ExportPlan, entries: list[DatabaseEntry]) -> dict[str, int]:
    """Class ids: the user's, else positions in the sorted list of all annotated classes.

    Where the reader counts classes (THUMOS14) and some have no exported video, the rest is counted
    afresh, because ids must lie below that count.
    """
    used = sorted({s.label for entry in entries for s in entry.segments})
    if plan.label_ids is not None:
        strange = [label for label in used if label not in plan.label_ids]
        if strange:
            raise AnnotationError(
                f"--label-ids has no class {strange[0]!r}.", remedy="Give the complete list."
            )
        return {label: plan.label_ids[label] for label in used}
    labels = [x for x in (plan.annotations.labels if plan.annotations else used) if x != AMBIGUOUS]
    if plan.data_set == "thumos14" and len(used) < len(labels):
        plan.notes.append(
            f"Only {len(used)} of {len(labels)} classes are left, so they are numbered afresh and "
            f"num_classes is {len(used)}."
        )
        labels = used
    numbers = {label: number for number, label in enumerate(labels)}
    return {label: numbers[label] for label in used}
