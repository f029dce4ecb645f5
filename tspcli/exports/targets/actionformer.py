"""ActionFormer: npy files, or (ActivityNet) one HDF5 file whose path contains ``.hdf5``."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.annotations import Segment
from tspcli.annotations.dialects import Dialect
from tspcli.annotations.write import DatabaseEntry, write_database
from tspcli.core.text import counted
from tspcli.errors import ExportError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import (
    NpyWriter,
    all_classes,
    by_subset,
    label_ids,
    note_other_durations,
    one_stream,
    open_hdf5,
)
from tspcli.sampling import resampling

LENGTH = 192
"""``max_seq_len`` of its ActivityNet configuration."""

PADDED_LENGTH = 4608
"""``max_seq_len`` of data sets that are not resized, for rows at stride 1."""

_N_THUMOS_CLASSES = 20
_TRUNC_THRESH = 0.5


class ActionFormer(Target):
    """ActionFormer. Time comes from the number of rows, so they are best left as they are."""

    accepts = frozenset({"length", "resize", "container", "suffix", "pad_channels"})
    defaults: ClassVar = {"container": "npy"}
    takes_label_ids = True

    def resolve(self, options: ExportOptions, data_set: Dialect) -> ExportOptions:
        options = super().resolve(options, data_set)
        if options.container == "hdf5" and not data_set.resized:
            raise ExportError(
                f"ActionFormer's loader for {data_set.name} reads only npy files.",
                option="--container",
                value="hdf5",
            )
        if options.length is not None and not data_set.resized:
            raise ExportError(
                f"ActionFormer's loader for {data_set.name} computes times from a fixed stride, so "
                "rows cannot be resized.",
                remedy="Leave out --length.",
                option="--length",
                value=options.length,
            )
        return options

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return options.container == "hdf5" and ".hdf5" in out.name

    def wants_prefix(self, data_set: Dialect) -> bool:
        return bool(data_set.id_prefix)

    def annotation_name(self, name: str, prefix: str) -> str:
        return name.removeprefix(prefix)

    def check(self, plan: ExportPlan) -> None:
        path = str(self._feature_path(plan))
        if plan.options.container == "npy" and ".hdf5" in path:
            raise ExportError(
                f"ActionFormer takes a path with '.hdf5' in it ({path}) to be a file.",
                remedy="Give another --out, or --container hdf5.",
                option="--out",
                path=path,
            )
        if plan.options.container == "hdf5" and plan.options.suffix:
            raise ExportError(
                "--suffix is for names of files per video, but this is one file.", option="--suffix"
            )
        if plan.options.length is None:
            plan.require_sampling()
        else:
            note_other_durations(plan)

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
        if not plan.data_set.resized:
            assigned = (np.arange(video.n_rows) * stride + n_frames / 2) / rate
            return {"rows": Clock(video.shown_s, assigned)}
        steps = plan.options.length or LENGTH
        shown = resampling.linear(video.n_rows, steps).times_s(video.shown_s)
        if plan.options.length is None:
            step_frames = ((video.n_rows - 1) * stride + n_frames) / steps
        else:
            # The reader spreads features of fixed length over the annotated duration.
            step_frames = video.length_s * rate / steps
        return {"steps": Clock(shown, (np.arange(steps) + 0.5) * step_frames / rate)}

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        entries, dropped = self._entries(plan)
        if dropped:
            plan.notes.append(
                f"Left out of the annotations: {counted(len(dropped), 'training video')} without "
                f"an action on the features, where ActionFormer stops (the first: {dropped[0]!r})."
            )
        if not plan.has_entries(entries):
            return []
        ids = label_ids(plan, _labels(entries))
        n_classes = len(all_classes(plan))
        if not plan.data_set.resized and plan.label_ids is None and len(ids) < n_classes:
            plan.notes.append(
                f"Only {len(ids)} of {n_classes} classes are left, so these are renumbered and "
                f"num_classes is {len(ids)}."
            )
        path = folder / f"{plan.data_set.name}.json"
        write_database(path, entries, ids)
        return [path]

    def _entries(self, plan: ExportPlan) -> tuple[list[DatabaseEntry], list[str]]:
        """The videos to write, and the names of those at which the reader would stop."""
        entries, dropped = [], []
        for video, subset, segments in by_subset(plan, "ActionFormer"):
            if subset == "training" and not self._loads(video, segments, plan):
                dropped.append(video.annotation_name)
                continue
            word = plan.data_set.subset_words.get(subset, subset)
            entries.append(DatabaseEntry(video.annotation_name, word, video.length_s, segments))
        return entries, dropped

    def _loads(self, video: PlannedVideo, segments: tuple[Segment, ...], plan: ExportPlan) -> bool:
        """Whether the training loader finds an action on the features; otherwise it stops."""
        if not plan.data_set.resized:
            return bool(segments)
        steps = plan.options.length or LENGTH
        span = video.source.covered_s if plan.options.length is None else video.duration_s
        end = (span or video.source.covered_s) * (steps + 1) / steps
        return any(
            s.start_s < end
            and s.end_s > s.start_s
            and (min(s.end_s, end) - s.start_s) / (s.end_s - s.start_s) >= _TRUNC_THRESH
            for s in segments
        )

    def usage(self, plan: ExportPlan) -> Usage:
        sampling = plan.sampling
        fixed = plan.options.length is not None
        resized = plan.data_set.resized
        n_classes = 1 if resized else _N_THUMOS_CLASSES
        if plan.written and not resized:
            n_classes = len(label_ids(plan, _labels(self._entries(plan)[0])))
        stride = -1 if fixed or sampling is None else sampling.stride
        frames = -1 if fixed or sampling is None else sampling.clip_length
        rate = 15.0 if sampling is None else float(sampling.frame_rate)
        values = {
            "json_file": plan.annotation_file(f"{plan.data_set.name}.json"),
            "feat_folder": self._feature_path(plan),
            "file_prefix": plan.prefix or "~",
            "file_ext": f"{plan.options.suffix}.npy",
            "num_classes": n_classes,
            "input_dim": plan.width,
            "feat_stride": stride,
            "num_frames": frames,
            "default_fps": f"{rate:g}",
            "max_seq_len": plan.options.length or LENGTH if resized else PADDED_LENGTH,
        }
        if resized:
            values["force_upsampling"] = True
        block = "dataset: {\n" + "".join(f"  {k}: {_yaml(v)},\n" for k, v in values.items()) + "}\n"
        base = "configs/anet_tsp.yaml" if resized else "configs/thumos_i3d.yaml"
        lines = [f"Put this in place of the same values in {base} (actionformer.yaml):", block]
        if resized:
            lines.append(
                "label_id is the position in the list of class names. With an external score file "
                "(ext_score_file) it must be that file's order: give it as --label-ids."
            )
        else:
            lines.append(
                "ActionFormer silently drops videos whose file it does not find: check the number "
                "of videos that it prints."
            )
        return Usage("\n".join(lines), {"actionformer.yaml": block})


def _yaml(value: object) -> str:
    """A value in YAML's flow style; text is quoted where it could mean something else."""
    text = str(value)
    return text if re.fullmatch(r"[\w./~-]*", text) else json.dumps(text)


def _labels(entries: list[DatabaseEntry]) -> set[str]:
    return {segment.label for entry in entries for segment in entry.segments}
