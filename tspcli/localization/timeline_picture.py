"""A picture of the predicted actions of a video, below the annotated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tspcli.annotations import AnnotationOrigin, Annotations, Segment
from tspcli.core.files import replacing
from tspcli.errors import DependencyError, TspError
from tspcli.localization.feature_windows import Paths, open_features
from tspcli.localization.prediction import VideoPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_PREDICTIONS = 10
_ROW_INCHES = 0.32
_TRUTH_COLOR = "#2f2f2f"


def draw_timeline(
    video: VideoPrediction,
    truth: Sequence[Segment] | None = None,
    *,
    shown: int = SHOWN_PREDICTIONS,
) -> Figure:
    """Bars over the video's seconds: annotated actions above, predictions below, best first.

    A label has one colour in both; a prediction is the paler the lower its score is beside the
    video's best.

    Args:
        video: What was found.
        truth: What is annotated, if that is known; an empty list shows an empty row.
        shown: How many predictions.

    Raises:
        DependencyError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(
            "Pictures need matplotlib, which is not installed.",
            remedy='Install it with: pip install "tspcli[plots]"',
        ) from error
    predictions = video.predictions[:shown]
    truth_rows = _rows(truth or ())
    n_truth_rows = 0 if truth is None else max(1, len(truth_rows))
    n_rows = n_truth_rows + max(1, len(predictions))
    figure = Figure(figsize=(9, 1.1 + _ROW_INCHES * n_rows), layout="constrained")
    axes = figure.add_subplot()
    labels = [segment.label for segment in truth or ()]
    labels += [item.label for item in predictions if item.label is not None]
    color_of = {label: f"C{index % 10}" for index, label in enumerate(dict.fromkeys(labels))}

    names = ["annotated"] * min(n_truth_rows, 1) + [""] * (n_truth_rows - 1)
    for row, segments in enumerate(truth_rows):
        for segment in segments:
            width = segment.end_s - segment.start_s
            color = color_of[segment.label]
            axes.barh(
                row, width, left=segment.start_s, height=0.7, color=color, edgecolor=_TRUTH_COLOR
            )
            _write(axes, segment.start_s, row, segment.label)
    best = max((item.score for item in predictions), default=0.0) or 1.0
    for rank, item in enumerate(predictions):
        row = n_truth_rows + rank
        names.append(f"{item.score:.3f}")
        axes.barh(
            row,
            item.end_s - item.start_s,
            left=item.start_s,
            height=0.7,
            color=color_of.get(item.label or "", "C0"),
            alpha=0.25 + 0.75 * max(item.score, 0.0) / best,
        )
        _write(axes, item.start_s, row, item.label or "")
    if not predictions:
        names.append("none found")
    if truth is not None:
        axes.axhline(n_truth_rows - 0.5, color=_TRUTH_COLOR, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(n_rows - 0.5, -0.5)
    axes.set_xlim(0, video.duration_s)
    axes.set_xlabel("seconds")
    if predictions:
        axes.set_ylabel("score of each prediction")
    # A dollar sign in a file's name is no formula.
    axes.set_title(video.key.replace("$", r"\$"), fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def annotated_actions(
    features: Paths,
    sources: Iterable[Annotations | AnnotationOrigin],
    on_problem: Callable[[str], None],
) -> dict[str, tuple[Segment, ...]]:
    """The annotated actions of stores' videos by key, from the first source that has a video.

    Args:
        features: The stores.
        sources: Annotations, or where a run's were read.
        on_problem: Receives why a run's annotations cannot be shown.

    Raises:
        AnnotationError: If a name in annotations could mean either of two videos.
    """
    found: dict[str, tuple[Segment, ...]] = {}
    with open_features(features) as opened:
        for source in sources:
            try:
                known = source if isinstance(source, Annotations) else source.read()
                names = known.pair(list(opened))
            except TspError as error:
                if isinstance(source, Annotations):
                    raise
                on_problem(str(error))
                continue
            for key, name in names.items():
                found.setdefault(key, known[name].segments)
    return found


def save_timeline(
    path: str | Path,
    video: VideoPrediction,
    truth: Sequence[Segment] | None = None,
) -> None:
    """Write the picture of :func:`draw_timeline` as PNG.

    Raises:
        DependencyError: If matplotlib is not installed.
    """
    figure = draw_timeline(video, truth)
    with replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def _rows(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments on as few rows as keep them from covering each other."""
    rows: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda item: (item.start_s, item.end_s)):
        for row in rows:
            if row[-1].end_s <= segment.start_s:
                row.append(segment)
                break
        else:
            rows.append([segment])
    return rows


def _write(axes: Axes, start_s: float, row: int, label: str) -> None:
    axes.text(start_s, row, " " + label.replace("$", r"\$"), va="center", fontsize=7, clip_on=True)
