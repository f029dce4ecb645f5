"""Figures that the official ActivityNet evaluation code gave for made-up files.

That code (``eval_detection.py`` and ``eval_proposal.py`` of the challenge) was run once on the
files of :func:`case`; what it gave stands in :data:`OFFICIAL`. Scores are equal only where the
order of the equal ones cannot matter, since numpy's default sort may order them otherwise on
another processor; where it matters, ``test_metrics.py`` compares with plain loops.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tspcli.localization.evaluation import evaluate

# mAP at 0.5, at 0.75, mean; AR at a tenth of the curve, at its end, AUC, with all proposals and
# with 5 a video at most.
OFFICIAL: dict[str, list[float]] = {
    "distinct": [
        0.145047800440,
        0.099691358025,
        0.096947112908,
        0.123333333333,
        0.256666666667,
        0.209716666667,
        0.000000000000,
        0.193333333333,
        0.136866666667,
    ],
    "duplicates": [
        0.145047800440,
        0.099691358025,
        0.096947112908,
        0.136666666667,
        0.256666666667,
        0.215816666667,
        0.000000000000,
        0.140000000000,
        0.105233333333,
    ],
    "labels": [
        0.087280309832,
        0.036765703432,
        0.042516152590,
        0.200000000000,
        0.256666666667,
        0.240750000000,
        0.000000000000,
        0.193333333333,
        0.136866666667,
    ],
    "ties between labels": [
        0.179012758179,
        0.080596646943,
        0.102608012015,
        0.160000000000,
        0.256666666667,
        0.209850000000,
        0.000000000000,
        0.193333333333,
        0.146000000000,
    ],
    "ties between videos": [
        0.211156720148,
        0.122984051170,
        0.129937339484,
        0.163333333333,
        0.256666666667,
        0.214983333333,
        0.000000000000,
        0.200000000000,
        0.148000000000,
    ],
}

Row = tuple[str, float, float, str]


def draws(seed: int) -> Iterator[int]:
    """Numbers that are the same with every version of everything."""
    state = seed
    while True:
        state = (state * 1103515245 + 12345) % 2**31
        yield state // 2**16


def case(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Annotations and results in the official formats."""
    draw = draws(7)

    def segment(n_videos: int) -> Row:
        video, start = next(draw) % n_videos, next(draw) / 700
        return f"v{video:02}", start, start + 2 + next(draw) / 2500, "xyz"[next(draw) % 3]

    truths = [segment(8) for _ in range(30)]
    scored: list[tuple[Row, float]] = []
    # A tenth video has guesses and no truth; some with truths have no guess.
    for index in range(160):
        row = segment(10)
        if row[0] in ("v02", "v05"):
            continue
        if index % 3 and row[0] in (near := {t[0]: t for t in truths}):
            # Near a truth, or precision and recall would be 0 at most thresholds.
            name, start, end, label = near[row[0]]
            shift = (next(draw) % 100 - 50) / 25
            row = (name, start + shift, end + shift / 3, label if index % 4 else row[3])
        scored.append((row, 1 - next(draw) / 2**15 / 2 - index * 1e-6))
    if kind == "duplicates":
        truths = [row for row in truths for _ in range(2)]
        scored = [item for item in scored for _ in range(2)]
    if kind == "labels":
        scored = [
            ((*row[:3], label), score * share)
            for row, score in scored
            for label, share in (("x", 0.5), ("y", 0.31), ("z", 0.19))
        ]
    if kind.startswith("ties"):
        place = 3 if kind == "ties between labels" else 0
        count: Counter[str] = Counter()
        for index, (row, _) in enumerate(scored):
            count[str(row[place])] += 1
            scored[index] = (row, 1 / (1 + count[str(row[place])]))
    database: dict[str, Any] = {}
    for name, start, end, label in truths:
        entry = database.setdefault(name, {"subset": "validation", "annotations": []})
        entry["annotations"].append({"segment": [start, end], "label": label})
    results: dict[str, list[dict[str, Any]]] = {}
    for (name, start, end, label), score in scored:
        item = {"segment": [start, end], "label": label, "score": score}
        results.setdefault(name, []).append(item)
    return (
        {"version": "1", "taxonomy": [], "database": database},
        {"version": "1", "results": results, "external_data": {}},
    )


@pytest.mark.parametrize("kind", OFFICIAL)
def test_figures_are_those_of_the_official_code(tmp_path: Path, kind: str) -> None:
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    for path, content in zip((truth, results), case(kind), strict=True):
        path.write_text(json.dumps(content))
    expected = OFFICIAL[kind]
    for max_average, place in ((None, 3), (5.0, 6)):
        found = evaluate(truth, results, subset="validation", max_average_proposals=max_average)
        assert found.detection is not None
        recall = found.proposals.average_recall
        got = [*found.detection.map_per_tiou[[0, 5]].tolist(), found.detection.average_map]
        if kind != "ties between videos":
            assert got == pytest.approx(expected[:3], abs=1e-9)
        if kind != "ties between labels":
            figures = [float(recall[9]), float(recall[-1]), found.proposals.auc]
            assert figures == pytest.approx(expected[place : place + 3], abs=1e-9)
