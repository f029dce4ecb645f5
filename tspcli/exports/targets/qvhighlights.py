"""Moment-DETR and its successors on QVHighlights: npz files of rows of 2 s, queries in jsonl."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tspcli.annotations import Segment
from tspcli.core.text import counted
from tspcli.exports.export_plan import OWN_FILES, Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import NpzWriter, captions_by_name, shell

CLIP_S = 2.0
MAX_ROWS = 75
"""``max_v_l``: the reader leaves out all further rows."""

_SCORE = [4, 4, 4]


class QvHighlights(Target):
    """Readers that normalise the rows of each folder, so every encoder gets a folder of its own.

    Their times are row numbers times the clip length (``start_end_dataset.py`` of Moment-DETR).
    """

    accepts = frozenset({"grid_s"})
    defaults: ClassVar = {"grid_s": CLIP_S}

    def check(self, plan: ExportPlan) -> None:
        long = [video.name for video in plan.videos if video.n_rows > MAX_ROWS]
        if long:
            plan.notes.append(
                f"{counted(len(long), 'video')} (the first: {long[0]!r}) have more than {MAX_ROWS} "
                f"rows, of which the reader leaves out the others without --max_v_l {plan.max_rows}"
                "."
            )
        captions_by_name(plan, lambda file: file.stem)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return NpzWriter(main, key="features")

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return {"clips": Clock(video.shown_s, (np.arange(video.n_rows) + 0.5) * _clip_s(plan))}

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        n_rows = {video.annotation_name: video.n_rows for video in plan.videos}
        paths: list[Path] = []
        number = n_outside = 0
        for stem, captions in captions_by_name(plan, lambda file: file.stem).items():
            lines = []
            for name, segments, duration_s in captions:
                for query, windows in _by_query(segments).items():
                    line = _line(windows, n_rows[name], _clip_s(plan))
                    if line is None:
                        n_outside += 1
                        continue
                    # Numbers run on, because one folder holds the text features of all files.
                    about = {"qid": number, "query": query, "vid": name}
                    lines.append(about | {"duration": duration_s} | line)
                    number += 1
            paths.append(folder / f"{stem}.jsonl")
            paths[-1].write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        if n_outside:
            plan.notes.append(
                f"Left out, because no row shows them: {counted(n_outside, 'query')}."
            )
        if not paths:
            plan.notes.append("No captions were given as queries, so none are written.")
        return paths

    def usage(self, plan: ExportPlan) -> Usage:
        written = sorted(plan.written)
        train = next((n for n in written if n.startswith("train")), "highlight_train_release.jsonl")
        valid = next((n for n in written if n != train), "highlight_val_release.jsonl")
        lines = [
            "In a checkout of Moment-DETR (further encoders' folders follow in --v_feat_dirs, and "
            "--v_feat_dim is the sum of all widths):",
            "  PYTHONPATH=. python moment_detr/train.py --dset_name hl --ctx_mode video_tef \\",
            f"    --v_feat_dirs {shell(plan.out)} --v_feat_dim {plan.width} \\",
            f"    --t_feat_dir {OWN_FILES / 'clip_text_features'} --t_feat_dim 512 \\",
            f"    --train_path {shell(plan.annotation_file(train))} \\",
            f"    --eval_path {shell(plan.annotation_file(valid))} --eval_split_name val",
        ]
        if plan.max_rows > MAX_ROWS:
            lines[-1] += f" \\\n    --max_v_l {plan.max_rows}"
        if _clip_s(plan) != CLIP_S:
            lines[-1] += f" \\\n    --clip_length {_clip_s(plan):g}"
        lines.append(
            "Text features are qid<NUMBER>.npz with last_hidden_state (words, 512) of CLIP's text "
            "encoder, which tspcli does not compute."
        )
        if plan.written:
            lines.append(
                "The captions have no saliency, so every relevant clip has the highest score: "
                "--lw_saliency 0 turns the loss on it off, and highlight scores mean nothing."
            )
        return Usage("\n".join(lines))


def _clip_s(plan: ExportPlan) -> float:
    return plan.options.grid_s or CLIP_S


def _by_query(segments: Sequence[Segment]) -> dict[str, list[Segment]]:
    """The windows of each query, in the order of the queries."""
    found: dict[str, list[Segment]] = {}
    for segment in segments:
        found.setdefault(segment.label, []).append(segment)
    return found


def _line(segments: Sequence[Segment], n_rows: int, clip_s: float) -> dict[str, Any] | None:
    """What a line says of the windows of one query; None if no row shows them."""
    end_s = n_rows * clip_s
    windows = [[s.start_s, min(s.end_s, end_s)] for s in segments if s.start_s < end_s]
    windows = [[start, end] for start, end in windows if end > start]
    clips = sorted(
        {
            clip
            for start, end in windows
            for clip in range(math.floor(start / clip_s), math.ceil(end / clip_s))
        }
    )
    if not clips:
        return None
    return {
        "relevant_clip_ids": clips,
        "saliency_scores": [_SCORE] * len(clips),
        "relevant_windows": windows,
    }
