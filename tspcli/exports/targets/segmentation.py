"""Action segmentation (MS-TCN, DiffAct, LTContext): one column and one label per frame."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from tspcli.core.text import counted
from tspcli.errors import AnnotationError, ExportError
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import NpyWriter, all_classes, by_subset, frame_classes
from tspcli.sampling.resampling import FloatArray

BACKGROUND = "background"
"""The label of frames without an action; what the readers' evaluation leaves out."""

_SPLITS = {"training": "train"}


class Segmentation(Target):
    """Readers that know frames and no seconds: column i is frame i, and so is line i.

    Rows that are one per frame already stay; others are interpolated at the frames' times.
    """

    accepts = frozenset({"row_rate"})
    defaults: ClassVar = {"row_rate": "original"}

    def check(self, plan: ExportPlan) -> None:
        for video in plan.videos:
            if "." in video.name:
                raise ExportError(
                    f"The readers cut names at the first dot, and {video.name!r} has one.",
                    remedy="Rename the video (tsp store rename).",
                    video=video.name,
                )
        if plan.annotations is not None:
            _words(all_classes(plan))

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        folder = main / "features"
        folder.mkdir()
        return NpyWriter(folder, lambda rows: [("", np.ascontiguousarray(rows.T))])

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return {"frames": Clock(video.shown_s, _times_s(video))}

    def write_extras(self, plan: ExportPlan, main: Path) -> None:
        if plan.annotations is None:
            return
        videos = by_subset(plan, "action segmentation")
        if not plan.has_entries([s for _, _, segments in videos for s in segments]):
            return
        words = _words(all_classes(plan))
        (main / "groundTruth").mkdir()
        (main / "splits").mkdir()
        bundles: dict[str, list[str]] = {"train": [], "test": []}
        used: set[str] = set()
        n_twice = 0
        for video, subset, segments in videos:
            labels = np.full(video.n_rows, BACKGROUND, dtype=object)
            ordered = sorted(segments, key=lambda segment: segment.start_s)
            for label, there in frame_classes(ordered, _times_s(video)):
                n_twice += int((there & (labels != BACKGROUND) & (labels != words[label])).sum())
                labels[there] = words[label]
            used |= set(labels)
            name = f"{video.annotation_name}.txt"
            _write_lines(main / "groundTruth" / name, labels)
            bundles[_SPLITS.get(subset, "test")].append(name)
        for split, names in bundles.items():
            _write_lines(main / "splits" / f"{split}.split1.bundle", names)
        classes = [BACKGROUND] * (BACKGROUND in used) + sorted(set(words.values()) - {BACKGROUND})
        _write_lines(main / "mapping.txt", [f"{i} {word}" for i, word in enumerate(classes)])
        if n_twice:
            plan.notes.append(
                f"{counted(n_twice, 'frame')} have two actions, of which the one that starts later "
                "is written."
            )

    def usage(self, plan: ExportPlan) -> Usage:
        rate = plan.options.row_rate
        each = "frame of the video" if rate == "original" else f"1/{rate:g} s"
        lines = [
            f"features/ has {plan.width} x T for each video, one column for each {each}.",
            "The folder has the layout of a data set below ./data/ in MS-TCN's checkout: link it "
            f"there, and set features_dim = {plan.width} in main.py.",
            "sample_rate is 1 (MS-TCN's 50Salads and DiffAct take every second column or more); "
            "readers with feature_transpose (FACT) take (D, T) as it is.",
        ]
        if plan.annotations is None:
            lines.append(
                "groundTruth/, mapping.txt and splits/ are written where --annotations are given."
            )
        return Usage("\n".join(lines))


def _times_s(video: PlannedVideo) -> FloatArray:
    """The middle of each frame, in seconds."""
    assert video.rate is not None
    return (np.arange(video.n_rows) + 0.5) / video.rate


def _words(labels: Iterable[str]) -> dict[str, str]:
    """Labels as the readers take them: without white space, at which they cut lines.

    Raises:
        AnnotationError: If two labels become one.
    """
    words: dict[str, str] = {}
    seen: dict[str, str] = {}
    for label in labels:
        word = "_".join(label.split())
        if word in seen:
            raise AnnotationError(
                f"{seen[word]!r} and {label!r} would both be written as {word!r}.",
                value=label,
            )
        seen[word], words[label] = label, word
    return words


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Every line ends, because MS-TCN drops what follows the last line end."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
