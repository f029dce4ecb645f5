"""PDVC: one npy file per video, read by the first 13 characters of its name."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

from tspcli.annotations import Annotations
from tspcli.annotations.dialects import Dialect
from tspcli.annotations.write import write_captions
from tspcli.errors import ExportError
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import (
    NO_CAPTIONS,
    NpyWriter,
    captions_by_name,
    note_other_durations,
    one_stream,
)
from tspcli.sampling import resampling

LENGTH = 100
"""``frame_embedding_num`` of its ActivityNet configurations."""

NAME_LENGTH = 13
"""Characters of a name that make the file name: ``v_`` and a YouTube ID of 11."""

_TSP_WIDTH = 512


class Pdvc(Target):
    """PDVC on ActivityNet Captions. It replaces a missing file by zeros, with a message."""

    accepts = frozenset({"length", "resize"})

    def wants_prefix(self, data_set: Dialect) -> bool:
        return True

    def check(self, plan: ExportPlan) -> None:
        seen: dict[str, str] = {}
        for video in plan.videos:
            short = video.name[:NAME_LENGTH]
            if short in seen:
                raise ExportError(
                    f"PDVC reads the first {NAME_LENGTH} characters of a name, in which "
                    f"{seen[short]!r} and {video.name!r} agree.",
                    remedy="Rename one of them.",
                    video=video.name,
                )
            seen[short] = video.name
        if plan.width != _TSP_WIDTH:
            raise ExportError(
                f"PDVC's feature type 'tsp' has width {_TSP_WIDTH} in its code "
                f"(data/video_dataset.py); these features have {plan.width}.",
                remedy="Export features of width 512, or use the npy target and add a feature type "
                "to PDVC.",
                value=plan.width,
            )
        captions_by_name(plan, _stem)
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return NpyWriter(main, one_stream(), lambda name: name[:NAME_LENGTH])

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        shown = video.shown_s
        if video.n_rows != LENGTH:
            shown = resampling.nearest_by_ends(video.n_rows, LENGTH).times_s(shown)
        return {"steps": Clock(shown, resampling.bin_centers_s(LENGTH, video.length_s))}

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        return write_caption_files(plan, folder)

    def usage(self, plan: ExportPlan) -> Usage:
        config = (
            "id: anet_tsp_pdvc\n"
            "base_cfg_path: cfgs/anet_c3d_pdvc.yml\n"
            "visual_feature_type: ['tsp']\n"
            f"visual_feature_folder: [{_yaml(plan.out)}]\n"
            "invalid_video_json: []\n"
            f"feature_dim: {plan.width}\n"
        )
        for option, name in (("train_caption_file", "train"), ("val_caption_file", "val_1")):
            match = next((n for n in sorted(plan.written) if n.startswith(name)), None)
            if match:
                config += f"{option}: {_yaml(plan.annotation_file(match))}\n"
        lines = [
            "Save this as cfgs/anet_tsp_pdvc.yml in a checkout of PDVC (pdvc.yml), then",
            "  python train.py --cfg_path cfgs/anet_tsp_pdvc.yml --gpu_id 0",
            config,
        ]
        if plan.options.length != LENGTH:
            lines.append(
                f"PDVC itself picks {LENGTH} rows and spreads them evenly over the annotated "
                "duration, which stretches a video of D seconds by D/200 at both ends; "
                f"`--length {LENGTH} --resize centers` makes its clock exact."
            )
        return Usage("\n".join(lines), {"pdvc.yml": config})


def _yaml(path: Path) -> str:
    """A path as a YAML string."""
    return "'" + str(path).replace("'", "''") + "'"


def write_caption_files(plan: ExportPlan, folder: Path) -> list[Path]:
    """Every given caption file again, filtered to the exported videos, under its own name."""
    paths = []
    for name, captions in captions_by_name(plan, _stem).items():
        paths.append(folder / f"{name}.json")
        write_captions(paths[-1], captions)
    if not paths:
        plan.notes.append(NO_CAPTIONS)
    return paths


def _stem(file: Annotations) -> str:
    return file.stem
