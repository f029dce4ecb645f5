"""ActionFormer: npy or npz files, or (ActivityNet) one HDF5 file whose path contains ``.hdf5``."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tspcli.annotations import Segment
from tspcli.annotations.data_sets import DataSet
from tspcli.annotations.write import DatabaseEntry, write_database
from tspcli.core.text import counted
from tspcli.errors import ExportError
from tspcli.exports.actionformer_config import LENGTH, Form, configuration, form_of
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import (
    NpyWriter,
    NpzWriter,
    all_classes,
    by_subset,
    label_ids,
    note_few_classes,
    note_other_durations,
    one_stream,
    open_hdf5,
    refuse_length,
)
from tspcli.sampling import Sampling, resampling

CONFIG = "actionformer.yaml"


class ActionFormer(Target):
    """ActionFormer. Time comes from the number of rows, so they are best left as they are."""

    accepts = frozenset({"length", "resize", "container", "suffix", "pad_channels"})
    defaults: ClassVar = {"container": "npy"}
    takes_label_ids = True

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        options = super().resolve(options, data_set)
        form = form_of(data_set.name)
        if options.container == "hdf5" and form.loader != "anet":
            raise ExportError(
                f"ActionFormer's loader for {data_set.title or data_set.name} reads only "
                f"{form.extension[1:]} files.",
                option="--container",
                value="hdf5",
            )
        if not form.resizes:
            refuse_length(options, "ActionFormer", data_set)
        return options

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return options.container == "hdf5" and ".hdf5" in out.name

    def wants_prefix(self, data_set: DataSet) -> bool:
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
        if _form(plan).resizes:
            note_few_classes(plan, "ActionFormer")
        if plan.options.length is None:
            plan.require_rhythm()
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
        if _form(plan).extension == ".npz":
            return NpzWriter(main, plan.options.suffix)
        return NpyWriter(main, one_stream(plan.options.suffix))

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        sampling = video.source.sampling
        stride, n_frames = sampling.stride, _n_frames(sampling)
        rate = float(sampling.frame_rate)
        if not _form(plan).resizes:
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
        counts = not _form(plan).resizes
        ids = label_ids(plan, _labels(entries), counts=counts)
        n_classes = len(all_classes(plan))
        if counts and plan.label_ids is None and len(ids) < n_classes:
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
            word = _form(plan).words.get(subset, subset)
            # Without default_fps the reader takes each video's own.
            fps = float(video.source.sampling.frame_rate) if _has_own_rates(plan) else None
            entries.append(
                DatabaseEntry(video.annotation_name, word, video.length_s, segments, fps=fps)
            )
        return entries, dropped

    def _loads(self, video: PlannedVideo, segments: tuple[Segment, ...], plan: ExportPlan) -> bool:
        """Whether the training loader finds an action on the features; otherwise it stops."""
        form = _form(plan)
        if form.loader != "anet":
            return bool(segments)
        # The loader takes the features to end one step after the rows.
        if form.resizes:
            steps = plan.options.length or LENGTH
            span = video.source.covered_s if plan.options.length is None else video.duration_s
            end = (span or video.source.covered_s) * (steps + 1) / steps
        else:
            end = video.source.covered_s + video.source.step_s
        return any(
            s.start_s < end
            and s.end_s > s.start_s
            and (min(s.end_s, end) - s.start_s) / (s.end_s - s.start_s) >= form.least_part
            for s in segments
        )

    def usage(self, plan: ExportPlan) -> Usage:
        form, sampling = _form(plan), plan.rhythm
        n_classes = form.n_classes
        if plan.written and not form.resizes:
            ids = label_ids(plan, _labels(self._entries(plan)[0]), counts=True)
            n_classes = max(len(ids), *(number + 1 for number in ids.values()))
        dataset: dict[str, Any] = {
            "json_file": str(plan.annotation_file(f"{plan.data_set.name}.json")),
            "feat_folder": str(self._feature_path(plan)),
            "file_prefix": plan.prefix or None,
            "file_ext": f"{plan.options.suffix}{form.extension}",
            "num_classes": n_classes,
            "input_dim": plan.width,
        }
        if plan.options.length is not None or sampling is None:
            dataset |= {"feat_stride": -1, "num_frames": -1}
        else:
            dataset |= {"feat_stride": sampling.stride, "num_frames": _n_frames(sampling)}
        rate = 15.0 if sampling is None else float(sampling.frame_rate)
        dataset |= {
            "default_fps": None if _has_own_rates(plan) else _whole(rate),
            "trunc_thresh": form.least_part,
            "crop_ratio": [0.9, 1.0],
        }
        if form.resizes or sampling is None:
            dataset |= {"max_seq_len": plan.options.length or LENGTH, "force_upsampling": True}
        else:
            dataset["max_seq_len"] = form.window_rows(sampling)
        config = configuration(form, dataset, plan.max_rows)
        where = plan.companions / CONFIG
        lines = [
            f"{CONFIG} is a configuration for {plan.data_set.title or plan.data_set.name} "
            "(--data-set chooses another). In a checkout of ActionFormer:",
            f"  python train.py {where} --output tsp",
            f"  python eval.py {where} ckpt/{where.stem}_tsp",
        ]
        lines += self._explained(plan, form, dataset)
        return Usage("\n".join(lines), {CONFIG: config})

    def _explained(self, plan: ExportPlan, form: Form, dataset: dict[str, Any]) -> list[str]:
        lines = [_evaluation(plan, form)]
        if form.resizes:
            lines.append(
                "num_classes is 1, because it finds proposals there and takes their classes from "
                "ext_score_file, by label_id, the position in the list of class names: give that "
                "file's order as --label-ids. For classes of your own use --data-set own."
            )
        elif dataset["num_classes"] is None:
            lines.append("Set num_classes to the number of classes in your annotations.")
        if form.loader in ("thumos", "ego4d"):
            lines.append(
                "ActionFormer silently drops videos whose file it does not find: check the number "
                "of videos that it prints."
            )
        if not form.resizes and plan.sampling is not None:
            rows = dataset["max_seq_len"]
            lines.append(
                f"Training windows (max_seq_len) have {rows} rows, "
                f"{rows * float(plan.sampling.stride_s):.1f} s."
            )
        return lines


def _n_frames(sampling: Sampling) -> int | float:
    """``num_frames``: half of it is the centre of the first row, in frames."""
    return _whole(float(2 * sampling.center_offset))


def _whole(value: float) -> int | float:
    return round(value) if value.is_integer() else value


def _has_own_rates(plan: ExportPlan) -> bool:
    """Whether each video has a frame rate of its own, which the annotations state."""
    return plan.options.length is None and plan.sampling is None


def _form(plan: ExportPlan) -> Form:
    return form_of(plan.data_set.name)


def _evaluation(plan: ExportPlan, form: Form) -> str:
    """At which thresholds the loader evaluates, and at which the data set's protocol does."""
    line = f"It evaluates at tIoU {form.tious[0]:g} to {form.tious[1]:g}"
    tious = plan.data_set.tious
    if tious and (round(tious[0], 4), round(tious[-1], 4)) != form.tious:
        line += (
            f"; the protocol of {plan.data_set.title or plan.data_set.name} is {tious[0]:g} to "
            f"{tious[-1]:g} ({len(tious)} thresholds): tiou_thresholds in libs/datasets"
        )
    return f"{line}."


def _labels(entries: list[DatabaseEntry]) -> set[str]:
    return {segment.label for entry in entries for segment in entry.segments}
