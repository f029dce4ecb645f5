"""PDVC: one npy file per video, read by the first 13 characters of its name."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tspcli.annotations import Annotations
from tspcli.annotations.data_sets import DataSet
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

CONFIG = "pdvc.yml"


class FeatureType(NamedTuple):
    """A feature type in PDVC's code (``get_feats`` in ``data/video_dataset.py``).

    Attributes:
        name: What it is called there.
        first: The first character of a video's name in its file name.
        suffix: What follows the name in its file name.
    """

    name: str
    first: int = 0
    suffix: str = ""

    @property
    def stem(self) -> Callable[[str], str]:
        """The name of a video's file from the video's."""
        return lambda name: name[self.first : NAME_LENGTH]


FEATURE_TYPES = {
    128: FeatureType("vggish"),
    500: FeatureType("c3d"),
    512: FeatureType("tsp"),
    1024: FeatureType("i3d_rgb", suffix="_rgb"),
    2048: FeatureType("resnet", first=2, suffix="_resnet"),
}
"""By width, which PDVC checks. Nothing else of a type matters: it does not normalise features."""


class Pdvc(Target):
    """PDVC on ActivityNet Captions. It replaces a missing file by zeros, with a message."""

    accepts = frozenset({"length", "resize", "pad_channels"})

    def wants_prefix(self, data_set: DataSet) -> bool:
        return True

    def check(self, plan: ExportPlan) -> None:
        if plan.width not in FEATURE_TYPES:
            wider = [width for width in FEATURE_TYPES if width > plan.width]
            raise ExportError(
                f"PDVC has no feature type of width {plan.width}; its code has "
                f"{', '.join(map(str, FEATURE_TYPES))} (get_feats in data/video_dataset.py).",
                remedy=f"Pad the rows with zeros: --pad-channels {wider[0]}." if wider else None,
                option="--pad-channels",
                value=plan.width,
            )
        seen: dict[str, str] = {}
        for video in plan.videos:
            short = FEATURE_TYPES[plan.width].stem(video.name)
            if short in seen:
                raise ExportError(
                    f"PDVC reads the first {NAME_LENGTH} characters of a name, in which "
                    f"{seen[short]!r} and {video.name!r} agree.",
                    remedy="Rename one of them.",
                    video=video.name,
                )
            seen[short] = video.name
        captions_by_name(plan, _stem)
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        kind = FEATURE_TYPES[plan.width]
        return NpyWriter(main, one_stream(kind.suffix), kind.stem)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        shown = video.shown_s
        if video.n_rows != LENGTH:
            shown = resampling.nearest_by_ends(video.n_rows, LENGTH).times_s(shown)
        return {"steps": Clock(shown, resampling.bin_centers_s(LENGTH, video.length_s))}

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        return write_caption_files(plan, folder)

    def usage(self, plan: ExportPlan) -> Usage:
        kind = FEATURE_TYPES[plan.width]
        config = (
            f"id: anet_{kind.name}_pdvc\n"
            "base_cfg_path: cfgs/anet_c3d_pdvc.yml\n"
            f"visual_feature_type: ['{kind.name}']\n"
            f"visual_feature_folder: [{_yaml(plan.out)}]\n"
            "invalid_video_json: []\n"
            f"feature_dim: {plan.width}\n"
        )
        train = [name for name in sorted(plan.written) if name.startswith("train")]
        # ActivityNet's validation videos are captioned twice, and both files are references.
        valid = [name for name in sorted(plan.written) if not name.startswith("train")]
        if train:
            config += f"train_caption_file: {_yaml(plan.annotation_file(train[0]))}\n"
        if valid:
            files = [_yaml(plan.annotation_file(name)) for name in valid]
            config += f"val_caption_file: {files[0]}\ngt_file_for_eval: [{', '.join(files)}]\n"
        lines = [
            f"{CONFIG} is a configuration. In a checkout of PDVC:",
            f"  python train.py --cfg_path {plan.companions / CONFIG} --gpu_id 0",
            config,
        ]
        if valid:
            lines.append(
                "Paragraph scores (gt_file_for_para_eval) are computed against the files of PDVC's "
                "checkout, whose vocabulary (dict_file) is also ActivityNet Captions'."
            )
        if plan.options.length != LENGTH:
            lines.append(
                f"PDVC itself picks {LENGTH} rows and spreads them evenly over the annotated "
                "duration, which stretches a video of D seconds by D/200 at both ends; "
                f"`--length {LENGTH} --resize centers` makes its clock exact."
            )
        return Usage("\n".join(lines), {CONFIG: config})


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
