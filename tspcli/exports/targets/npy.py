"""Plain npy files with a table of the times of their rows."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

from tspcli.annotations.write import write_table
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Target, Usage, Writer
from tspcli.exports.toolkit import NpyWriter, one_stream

TABLE = "videos.csv"


class Npy(Target):
    """No reader in particular: ``NAME.npy``, shape (rows, width), and ``videos.csv``."""

    accepts = frozenset({"length", "resize", "row_rate", "grid_s", "suffix", "pad_channels"})
    trains = False

    def check(self, plan: ExportPlan) -> None:
        if not plan.resampled:
            plan.require_even_rows()

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return NpyWriter(main, one_stream(plan.options.suffix))

    def write_extras(self, plan: ExportPlan, main: Path) -> None:
        rows = []
        for video in plan.videos:
            first, step = _line(video, plan)
            rows.append(
                (
                    video.name,
                    f"{video.name}{plan.options.suffix}.npy",
                    video.n_rows,
                    repr(first),
                    repr(step),
                    "" if video.duration_s is None else video.duration_s,
                )
            )
        columns = ("video", "file", "rows", "first_center_s", "step_s", "duration_s")
        write_table(main / TABLE, columns, rows)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        first, step = _line(video, plan)
        return {"table": Clock(video.shown_s, video.shown_s * 0 + _steps(video, first, step))}

    def usage(self, plan: ExportPlan) -> Usage:
        return Usage(
            f"{TABLE} lists the files; row i of one shows the clip or bin whose centre is at "
            "first_center_s + i * step_s seconds."
        )


def _steps(video: PlannedVideo, first: float, step: float) -> list[float]:
    return [first + i * step for i in range(video.n_rows)]


def _line(video: PlannedVideo, plan: ExportPlan) -> tuple[float, float]:
    """First centre and step of the exported rows, in seconds."""
    source, options = video.source, plan.options
    if video.resample is None:
        return source.first_s, source.step_s
    if options.length is not None:
        if options.resize == "centers":
            assert video.span_s is not None
            step = video.span_s / options.length
            return step / 2, step
        step = source.n_rows * source.step_s / options.length
        return source.first_s - source.step_s / 2 + step / 2, step
    assert video.rate is not None
    step = 1 / video.rate
    return (step / 2 if options.grid_s is not None else 0.0), step
