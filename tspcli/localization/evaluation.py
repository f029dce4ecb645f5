"""Evaluate results against annotations, from files to figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.annotations import Annotations, read_actions
from tspcli.core.text import counted
from tspcli.core.video_names import canonical
from tspcli.errors import AnnotationError
from tspcli.localization.metrics import (
    ACTIVITYNET_TIOUS,
    MAX_AVERAGE_PROPOSALS,
    DetectionMetrics,
    ProposalMetrics,
    evaluate_detection,
    evaluate_proposals,
)
from tspcli.localization.results import (
    Results,
    SegmentTable,
    ground_truth_table,
    read_linked_results,
    read_results,
    result_name,
    results_table,
)

GIVEN = "the given results"


@dataclass(frozen=True)
class Evaluation:
    """Both metrics of one set of results.

    Attributes:
        detection: None if no prediction has a label.
        proposals: Of proposals by their own scores; labels play no part in it.
        detection_source, proposals_source: The files that each is from; "the given results" for
            what was given as values.
        n_relabelled: How many rows of the recall are a segment of the same video once more, with
            another label: the recall counts each label as a proposal of its own.
        n_unknown_videos: Videos with predictions but without annotated actions.
        n_silent_videos: Videos with annotated actions but without predictions.
    """

    detection: DetectionMetrics | None
    proposals: ProposalMetrics
    n_unknown_videos: int
    n_silent_videos: int
    detection_source: str = GIVEN
    proposals_source: str = GIVEN
    n_relabelled: int = 0

    def notes(self) -> list[str]:
        """What to know when reading the figures."""
        notes = []
        if self.detection is not None:
            notes.append(f"mAP is of {self.detection_source}.")
        notes.append(f"AR and AUC are of {self.proposals_source}.")
        if count := self.n_relabelled:
            notes.append(
                f"{counted(count, 'row')} repeat a segment with another label; AR and AUC count "
                "each as a proposal of its own and come out lower. --proposals counts each segment "
                "once."
            )
        if count := self.n_unknown_videos:
            notes.append(f"{counted(count, 'predicted video')} without annotated actions.")
        if count := self.n_silent_videos:
            notes.append(f"{counted(count, 'annotated video')} without predictions.")
        if self.detection is not None and (count := self.detection.n_unknown_label):
            found = counted(count, "prediction")
            notes.append(f"{found} with a label that is not annotated; mAP ignores them.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "detection": None if self.detection is None else self.detection.to_dict(),
            "proposals": self.proposals.to_dict(),
            "n_unknown_videos": self.n_unknown_videos,
            "n_silent_videos": self.n_silent_videos,
            "detection_source": self.detection_source,
            "proposals_source": self.proposals_source,
            "n_relabelled": self.n_relabelled,
        }


def evaluate(
    annotations: Annotations | str | Path,
    results: Results | str | Path,
    *,
    proposals: Results | str | Path | None = None,
    subset: str | None = None,
    tious: Sequence[float] = ACTIVITYNET_TIOUS,
    max_average_proposals: float | None = MAX_AVERAGE_PROPOSALS,
    blocked: Iterable[str] | Path = (),
) -> Evaluation:
    """The ActivityNet protocol over results.

    Args:
        annotations: A file, or what was read from it.
        results: A results JSON, or predictions by the names that the annotations use.
        proposals: Likewise of each proposal once, by its own score, which the recall is computed
            from. None: those that the results file names, as ``tsp localize predict`` writes it,
            else the results themselves; where these repeat a segment with several labels, recall
            and its area are lower than the proposals deserve.
        subset: The videos to evaluate on, for annotations with subsets.
        tious: Thresholds of the mAP. Those of the recall are always ActivityNet's.
        max_average_proposals: The largest average number of proposals per video.
        blocked: Videos to leave out on both sides, by either side's name; or a file with one name
            per line.

    Raises:
        AnnotationError: If a file cannot be read, or no predicted video is annotated.
        UsageError: If there is nothing to evaluate.
    """
    if isinstance(annotations, Annotations):
        annotated = annotations.subset(subset)
    else:
        annotated = read_actions(annotations, subset)
    if isinstance(blocked, Path):
        blocked = read_lines(blocked)
    gone = {spelling for name in blocked for spelling in _spellings(name, annotated)}
    truth = ground_truth_table(annotated, gone)
    if proposals is None and isinstance(results, str | Path):
        table, proposals = read_linked_results(results, gone)
    else:
        table = _table(results, gone)
    candidates = table if proposals is None else _table(proposals, gone)
    table, candidates = _as_annotated(table, annotated), _as_annotated(candidates, annotated)
    shared = set(truth.videos) & set(table.videos)
    if table.videos and truth.videos and not shared:
        raise AnnotationError(
            f"No video of the results is annotated: they predict in {table.videos[0]!r}, the "
            f"annotations know {truth.videos[0]!r}.",
            remedy="Results name ActivityNet's videos without 'v_'; check the subset, too.",
        )
    recall = evaluate_proposals(truth, candidates, max_average_proposals=max_average_proposals)
    detection = evaluate_detection(truth, table, tious) if table.labels else None
    return Evaluation(
        detection,
        recall,
        len(table.videos) - len(shared),
        len(truth.videos) - len(shared),
        _source(results),
        _source(results if proposals is None else proposals),
        _n_relabelled(candidates),
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones.

    Raises:
        AnnotationError: If it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}.", path=path) from error
    return [line.strip() for line in lines if line.strip()]


def _table(results: Results | str | Path, blocked: set[str]) -> SegmentTable:
    if isinstance(results, str | Path):
        return read_results(results, blocked)
    return results_table(results, blocked)


def _spellings(name: str, annotated: Annotations) -> set[str]:
    """What the annotations, and results without `v_`, call a video of this name."""
    found = annotated.find(name) or name
    bare = result_name(found)
    return {name, found} | (set() if bare in annotated else {bare})


def _as_annotated(table: SegmentTable, annotated: Annotations) -> SegmentTable:
    """Results by the annotations' names: where these begin with `v_`, results have lost it.

    Not the other way round, which the official evaluation would not recognise either.
    """
    own = {canonical(name): name for name in annotated}
    named = {canonical(result_name(name)): name for name in annotated} | own
    taken = set(table.videos)
    videos = (
        name if (full := named.get(canonical(name), name)) in taken else full
        for name in table.videos
    )
    return SegmentTable(tuple(videos), *table[1:])


def _source(results: Results | str | Path) -> str:
    return str(results) if isinstance(results, str | Path) else GIVEN


def _n_relabelled(table: SegmentTable) -> int:
    """How often a segment of a video has one more label."""
    if not table.labels:
        return 0
    columns = (table.video, table.start_s, table.end_s, table.label)
    rows = np.stack([column.astype(np.float64) for column in columns], axis=1)
    return len(np.unique(rows, axis=0)) - len(np.unique(rows[:, :3], axis=0))
