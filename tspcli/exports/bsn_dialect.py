"""The base of targets that read BSN's annotation dialect: G-TAD, BMN and MMAction2.

These readers place row j of T at ``(j + 0.5) / T * span``. For labels the span is
``feature_frame / duration_frame * duration_second``; for proposals each reader uses a span of its
own, which does not depend on ``feature_frame``.
"""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tspcli.annotations.data_sets import DataSet
from tspcli.annotations.write import write_json, write_video_info
from tspcli.core.text import counted
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Writer
from tspcli.exports.toolkit import CsvWriter, note_cut_names, note_other_durations
from tspcli.sampling.resampling import FloatArray, bin_centers_s

_DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class Span:
    """The numbers from which a BSN reader computes seconds.

    Attributes:
        duration_s: ``duration_second``.
        n_frames: ``duration_frame``.
        feature_frame: ``feature_frame``.
        result_s: The span over which the reader spreads its proposals.
    """

    duration_s: float
    n_frames: int
    feature_frame: float
    result_s: float

    @property
    def label_s(self) -> float:
        """The span over which the reader spreads its labels."""
        return float(self.feature_frame) / self.n_frames * self.duration_s


ResultSpan = Callable[[float, int], float]


def whole_video(duration_s: float, n_frames: int) -> float:
    """G-TAD's span for proposals: the whole video."""
    return duration_s


def whole_snippets(duration_s: float, n_frames: int) -> float:
    """BMN's and MMAction2's span for proposals: the whole 16-frame snippets of the video."""
    return float(n_frames // 16 * 16) / n_frames * duration_s


def span_of(video: PlannedVideo, options: ExportOptions, result_span: ResultSpan) -> Span:
    """The numbers that are written for a video.

    ``feature_frame`` makes the loader's clock true: with ``centers`` the rows lie evenly over the
    span of the proposals; otherwise they cover the time from the first clip's start to the last
    one's end.
    """
    source, annotated = video.source, video.annotated
    duration = video.length_s
    n_frames = annotated.n_frames if annotated else None
    if n_frames is None or n_frames < 16:
        fps = (annotated.fps if annotated else None) or source.source_fps or _DEFAULT_FPS
        # A whole number of snippets makes both kinds of reader agree on the span.
        n_frames = 16 * max(1, round(duration * fps / 16))
    result_s = result_span(duration, n_frames)
    if options.feature_frame == "keep" or annotated is None:
        kept = annotated.feature_frame if annotated else None
        feature_frame = kept or result_s / duration * n_frames
    else:
        covered = result_s if options.resize == "centers" else source.covered_s
        feature_frame = covered / duration * n_frames
    whole = round(feature_frame)
    if abs(whole - feature_frame) < 1e-6:
        feature_frame = whole
    return Span(duration, n_frames, feature_frame, result_s)


class BsnTarget(Target):
    """A reader of BSN's dialect.

    Class attributes:
        result_span: The span over which it spreads its proposals.
    """

    result_span: ClassVar[ResultSpan]

    def wants_prefix(self, data_set: DataSet) -> bool:
        return True

    def span_s(self, video: PlannedVideo, options: ExportOptions) -> float | None:
        if video.duration_s is None:
            return None
        return self.span(video, options).result_s

    def span(self, video: PlannedVideo, options: ExportOptions) -> Span:
        """The numbers that are written for a video; see :func:`span_of`."""
        return span_of(video, options, type(self).result_span)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return clocks(self.span(video, plan.options), self.shown_s(video))

    def shown_s(self, video: PlannedVideo) -> FloatArray:
        """The seconds that the rows show which the reader works with."""
        return video.shown_s

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        return write_pair(plan, folder, lambda video: self.span(video, plan.options))


class ResizedTables(BsnTarget):
    """A reader of one table per video, which it does not resize: rows are resized beforehand.

    Class attributes:
        folder: The folder of the tables, with ``{}`` for their number of rows.
    """

    accepts = frozenset({"length", "resize", "feature_frame", "pad_channels"})
    defaults: ClassVar = {"length": 100, "resize": "linear"}
    result_span = whole_snippets
    folder: ClassVar[str]

    def check(self, plan: ExportPlan) -> None:
        note_cut_names(plan)
        note_other_durations(plan)

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        folder = main / self.folder.format(plan.options.length)
        folder.mkdir()
        return CsvWriter(folder, plan.width)


def clocks(span: Span, shown_s: FloatArray) -> dict[str, Clock]:
    """The reader's clocks for rows that it spreads evenly."""
    length = len(shown_s)
    return {
        "labels": Clock(shown_s, bin_centers_s(length, span.label_s)),
        "proposals": Clock(shown_s, bin_centers_s(length, span.result_s)),
    }


def entry(video: PlannedVideo, span: Span) -> dict[str, Any]:
    """The JSON object of one video."""
    annotated = video.annotated
    rfps = span.n_frames / span.duration_s
    fps = (annotated.fps if annotated else None) or video.source.source_fps or rfps
    return {
        "duration_second": span.duration_s,
        "duration_frame": span.n_frames,
        "annotations": [
            {"segment": [s.start_s, s.end_s], "label": s.label}
            for s in (annotated.segments if annotated else ())
        ],
        "feature_frame": span.feature_frame,
        "fps": fps,
        "rfps": rfps,
    }


def trainable(plan: ExportPlan) -> list[PlannedVideo]:
    """The annotated videos that the readers can load.

    Their loaders stop at a training or validation video without any segment, so such videos are
    left out and noted.
    """
    chosen, bare = [], []
    for video in plan.videos:
        if video.annotated is None:
            continue
        if not video.annotated.segments and video.annotated.subset != "testing":
            bare.append(video.annotation_name)
        else:
            chosen.append(video)
    if bare:
        plan.notes.append(
            f"Left out of the annotations: {counted(len(bare), 'video')} without a segment, where "
            f"the reader stops (the first: {bare[0]!r})."
        )
    return chosen


def write_pair(plan: ExportPlan, folder: Path, spans: Callable[[PlannedVideo], Span]) -> list[Path]:
    """``anet_anno_action.json`` and, where subsets are known, ``video_info_new.csv``."""
    videos = trainable(plan)
    entries = {video.annotation_name: entry(video, spans(video)) for video in videos}
    if not plan.has_entries(entries):
        return []
    anno = folder / "anet_anno_action.json"
    write_json(anno, entries)
    rows = [
        (video.annotation_name, video.annotated.subset, entries[video.annotation_name])
        for video in videos
        if video.annotated is not None and video.annotated.subset is not None
    ]
    if len(rows) < len(videos):
        plan.notes.append(
            f"The annotations give no subset for {counted(len(videos) - len(rows), 'video')}, so "
            "video_info_new.csv does not list them; add a file that gives it, or --subset."
        )
    if not rows:
        return [anno]
    info = folder / "video_info_new.csv"
    write_video_info(info, rows)
    return [anno, info]
