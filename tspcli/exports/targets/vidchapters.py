"""VidChapters and CM2_DVC: one torch file with the rows of all videos, captions in JSON."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

import numpy as np

from tspcli.errors import ExportError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer
from tspcli.exports.targets.pdvc import write_caption_files
from tspcli.exports.toolkit import captions_by_name, note_other_durations
from tspcli.sampling.resampling import bin_centers_s

MAX_ROWS = 100
"""``max_feats`` of VidChapters."""

ID_LENGTH = 11
"""Characters at the end of a name by which VidChapters looks a video up: a YouTube ID."""

FILE = "features.pth"
_SUFFIXES = (".pth", ".pt")


class _Together(Writer):
    """A dict of all videos, whose rows are in a file of their own until it is saved."""

    def __init__(self, path: Path, plan: ExportPlan) -> None:
        self._path = path
        self._aside = path.with_name(f"{path.name}.rows")
        shape = (sum(video.n_rows for video in plan.videos), plan.width)
        self._rows = np.memmap(self._aside, plan.options.dtype, "w+", shape=shape)
        self._spans: dict[str, slice] = {}
        self._end = 0

    def write(self, video: PlannedVideo, rows: Array) -> None:
        span = slice(self._end, self._end + len(rows))
        self._rows[span] = rows
        self._spans[video.name] = self._spans[video.name[-ID_LENGTH:]] = span
        self._end = span.stop

    def close(self) -> None:
        import torch

        rows = torch.from_numpy(self._rows)
        # Views of one storage, which is saved once, from the file.
        torch.save({name: rows[span] for name, span in self._spans.items()}, self._path)
        del rows, self._rows
        self._aside.unlink()


class VidChapters(Target):
    """Readers of one dict of tensors.

    VidChapters looks a video up by the last 11 characters of its name, CM2_DVC by the whole name,
    and takes zeros where it finds none; so the rows are there under both.
    """

    accepts = frozenset({"length", "resize", "pad_channels"})

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return out.suffix in _SUFFIXES

    def check(self, plan: ExportPlan) -> None:
        seen: dict[str, str] = {}
        for video in plan.videos:
            for name in {video.name, video.name[-ID_LENGTH:]}:
                if name in seen:
                    raise ExportError(
                        f"VidChapters looks videos up by the last {ID_LENGTH} characters of their "
                        f"names, in which {seen[name]!r} and {video.name!r} agree.",
                        remedy="Rename one of them (tsp store rename).",
                        video=video.name,
                    )
                seen[name] = video.name
        captions_by_name(plan, lambda file: file.stem)
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return _Together(main if self.is_file(plan.options, plan.out) else main / FILE, plan)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        shown, n_rows = video.shown_s, video.n_rows
        clocks = {"rows": Clock(shown, bin_centers_s(n_rows, video.length_s))}
        if n_rows > MAX_ROWS:
            picks = np.arange(MAX_ROWS) * n_rows // MAX_ROWS
            clocks["picks"] = Clock(shown[picks], bin_centers_s(MAX_ROWS, video.length_s))
        return clocks

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        return write_caption_files(plan, folder)

    def usage(self, plan: ExportPlan) -> Usage:
        path = plan.out if self.is_file(plan.options, plan.out) else plan.out / FILE
        files = [str(plan.annotation_file(name)) for name in sorted(plan.written)]
        lines = [
            f"VidChapters (dvc.py and vc.py): --features_dim {plan.width}, and as "
            f"--youcook_features_path, --vitt_features_path or --chapters_features_path: {path}",
            f"CM2_DVC: visual_feature_folder: ['{path}'] and feature_dim: {plan.width} in the "
            "configuration; it replaces a missing video by zeros of width 768, with a message.",
        ]
        if files:
            lines.append(
                "The captions, for --youcook_train_json_path and the like, or train_caption_file: "
                + ", ".join(files)
            )
        if plan.max_rows > MAX_ROWS:
            lines.append(
                f"VidChapters picks {MAX_ROWS} rows of longer videos (the longest has "
                f"{plan.max_rows}), each the first of its hundredth; `--length {MAX_ROWS} --resize "
                "centers` makes its clock exact."
            )
        lines.append(
            "A folder of npy files, which VidChapters takes too: tsp export --to npy "
            "--name-prefix strip:v_."
        )
        return Usage("\n".join(lines))
