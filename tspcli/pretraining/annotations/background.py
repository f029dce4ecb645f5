"""Where nothing happens: the stretches of a video between its actions."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from tspcli.annotations.model import Segment

GapRule = Literal["union", "official"]

CLIP_S = Fraction(16, 15)
"""Duration of a clip in the official recipe, in seconds."""
MIN_GAP_ACTIVITYNET_S = float(5 * CLIP_S)
MIN_GAP_THUMOS14_S = float(CLIP_S)


def background_segments(
    actions: Iterable[Segment],
    duration_s: float,
    *,
    min_gap_s: float,
    rule: GapRule = "union",
) -> list[tuple[float, float]]:
    """The gaps before, between and after a video's actions.

    Args:
        actions: In any order; they may overlap.
        duration_s: Of the video, in seconds.
        min_gap_s: Shorter gaps are left out: 5.333 s for ActivityNet, 1.0667 s for THUMOS14 in the
            released tables.
        rule: ``union`` takes the gaps of the union of all actions, so that no background row
            overlaps an action. ``official`` reproduces the released tables, flaw included: there a
            gap starts where the action that *started* last ends, so that the rest of a long action
            with a short one inside it counts as background (26 of 4,728 ActivityNet validation
            videos differ for that).

    Returns:
        (start, end) in seconds, in time order. Where actions are annotated beyond the video's end
        a gap between them may be too, as in the released tables; training clamps every row to the
        video.
    """
    gaps: list[tuple[float, float]] = []
    free_from_s = 0.0
    for action in sorted(actions):
        if action.start_s - free_from_s >= min_gap_s:
            gaps.append((free_from_s, action.start_s))
        free_from_s = max(free_from_s, action.end_s) if rule == "union" else action.end_s
    if duration_s - free_from_s >= min_gap_s:
        gaps.append((free_from_s, duration_s))
    return gaps
