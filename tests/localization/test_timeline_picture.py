from __future__ import annotations

from pathlib import Path

import pytest

from tspcli.annotations import Segment
from tspcli.localization.prediction import VideoPrediction
from tspcli.localization.results import Prediction
from tspcli.localization.timeline_picture import draw_timeline, save_timeline

pytest.importorskip("matplotlib")

VIDEO = VideoPrediction(
    "v_$odd$",
    60.0,
    [Prediction(9.0, 21.0, 0.8, "run"), Prediction(30.0, 40.0, 0.2, "jump")],
)


def bars(video: VideoPrediction, truth: list[Segment] | None) -> list[tuple[float, float, float]]:
    """(row, left, width) of each bar, from above."""
    axes = draw_timeline(video, truth).axes[0]
    found = [(p.get_y() + p.get_height() / 2, p.get_x(), p.get_width()) for p in axes.patches]
    return [(round(y, 6), round(x, 6), round(w, 6)) for y, x, w in found]


def test_annotations_lie_over_predictions_at_their_seconds() -> None:
    truth = [Segment(10.0, 20.0, "run"), Segment(25.0, 35.0, "run"), Segment(15.0, 30.0, "jump")]
    assert bars(VIDEO, truth) == [
        (0, 10, 10),
        (0, 25, 10),
        (1, 15, 15),
        (2, 9, 12),
        (3, 30, 10),
    ]
    axes = draw_timeline(VIDEO, truth).axes[0]
    assert axes.get_xlim() == (0, 60)
    bottom, top = axes.get_ylim()
    assert bottom > top
    colors = [patch.get_facecolor()[:3] for patch in axes.patches]
    assert colors[0] == colors[1] == colors[3]
    assert colors[2] == colors[4] != colors[0]


def test_without_annotations_predictions_are_alone() -> None:
    assert bars(VIDEO, None) == [(0, 9, 12), (1, 30, 10)]
    assert bars(VIDEO, []) == [(1, 9, 12), (2, 30, 10)]
    empty = draw_timeline(VideoPrediction("v", 5.0, [])).axes[0]
    assert [label.get_text() for label in empty.get_yticklabels()] == ["none found"]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "new" / "picture.png"
    save_timeline(path, VIDEO, [Segment(10.0, 20.0, "run $x_1$")])
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
