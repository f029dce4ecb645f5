"""How far the time that a reader gives a row is from the centre of what the row shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tspcli.exports.target import Clock, ExportPlan, PlannedVideo, Target

_EXACT_S = 5e-4
"""What rounds to 0.000 s."""


@dataclass(frozen=True)
class TimeError:
    """The worst errors of one of a reader's clocks over all videos of an export.

    Attributes:
        worst_s: The largest distance of any row, seconds.
        video: The video that has it.
        inside_s: The largest distance away from the ends: among rows that the reader takes to be
            between the first and the last clip's centre and that do not repeat the end rows.
    """

    worst_s: float
    video: str
    inside_s: float

    def told(self) -> str:
        """The errors in words."""
        if self.worst_s < _EXACT_S:
            return "the reader takes every row to be exactly where it is"
        return (
            f"rows are at most {self.worst_s:.3f} s from where the reader takes them to be "
            f"({self.video}), {self.inside_s:.3f} s away from the ends"
        )


def worst_errors(target: Target, plan: ExportPlan) -> dict[str, TimeError]:
    """The worst time errors of an export, by clock.

    Of the videos that the annotations name, where there are any: the reader loads no others.
    """
    found: dict[str, TimeError] = {}
    for video in plan.videos:
        if plan.annotations is not None and video.annotated_as is None:
            continue
        for name, clock in target.clocks(video, plan).items():
            worst, inside = errors_of(video, clock)
            known = found.get(name)
            if known is None:
                found[name] = TimeError(worst, video.name, inside)
            else:
                found[name] = TimeError(
                    max(worst, known.worst_s),
                    video.name if worst > known.worst_s else known.video,
                    max(inside, known.inside_s),
                )
    return found


def errors_of(video: PlannedVideo, clock: Clock) -> tuple[float, float]:
    """(Worst error, worst error away from the ends) of one video, in seconds."""
    error = np.abs(clock.assigned_s - clock.shown_s)
    shown = np.isfinite(error)
    if not shown.any():
        return 0.0, 0.0
    centers = video.clip_centers_s
    margin = 1e-9
    inside = (
        shown
        & (clock.assigned_s >= centers[0] - margin)
        & (clock.assigned_s <= centers[-1] + margin)
        & (clock.shown_s > centers[0] - margin)
        & (clock.shown_s < centers[-1] + margin)
    )
    return float(error[shown].max()), float(error[inside].max(initial=0.0))
