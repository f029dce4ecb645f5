"""Results against annotations, from file to figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tspcli.annotations import Annotations, read_actions
from tspcli.errors import AnnotationError
from tspcli.localization.metrics import (
    ACTIVITYNET_TIOUS,
    MAX_AVERAGE_PROPOSALS,
    DetectionMetrics,
    ProposalMetrics,
    evaluate_detection,
    evaluate_proposals,
)
from tspcli.localization.results import Results, ground_truth_table, read_results, results_table


@dataclass(frozen=True)
class Evaluation:
    """Both metrics of one set of results.

    Attributes:
        detection: None if no prediction has a label.
        proposals: Labels play no part in it.
        n_unknown_videos: Videos with predictions but without annotated actions.
        n_silent_videos: Videos with annotated actions but without predictions.
    """

    detection: DetectionMetrics | None
    proposals: ProposalMetrics
    n_unknown_videos: int
    n_silent_videos: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "detection": None if self.detection is None else self.detection.to_dict(),
            "proposals": self.proposals.to_dict(),
            "n_unknown_videos": self.n_unknown_videos,
            "n_silent_videos": self.n_silent_videos,
        }


def evaluate(
    annotations: Annotations | str | Path,
    results: Results | str | Path,
    *,
    subset: str | None = None,
    tious: Sequence[float] = ACTIVITYNET_TIOUS,
    max_average_proposals: float | None = MAX_AVERAGE_PROPOSALS,
    blocked: Iterable[str] = (),
) -> Evaluation:
    """The ActivityNet protocol over results.

    Args:
        annotations: A file, or what was read from it.
        results: A results JSON, or predictions by the names that the annotations use.
        subset: The videos to evaluate on, for annotations that tell subsets.
        tious: Thresholds of the mAP. Those of the recall are always ActivityNet's.
        max_average_proposals: The largest average number of proposals a video.
        blocked: Videos to leave out on both sides.

    Raises:
        AnnotationError: If a file cannot be read, or no predicted video is annotated.
        UsageError: If there is nothing to evaluate.
    """
    blocked = set(blocked)
    if isinstance(annotations, Annotations):
        annotated = annotations.subset(subset)
    else:
        annotated = read_actions(annotations, subset)
    truth = ground_truth_table(annotated, blocked)
    if isinstance(results, str | Path):
        table = read_results(results, blocked)
    else:
        table = results_table(results, blocked)
    shared = set(truth.videos) & set(table.videos)
    if table.videos and truth.videos and not shared:
        raise AnnotationError(
            f"No video of the results is annotated: they predict in {table.videos[0]!r}, the "
            f"annotations know {truth.videos[0]!r}.",
            remedy="Results name ActivityNet's videos without 'v_'; check the subset, too.",
        )
    proposals = evaluate_proposals(truth, table, max_average_proposals=max_average_proposals)
    detection = evaluate_detection(truth, table, tious) if table.labels else None
    return Evaluation(
        detection,
        proposals,
        len(table.videos) - len(shared),
        len(truth.videos) - len(shared),
    )
