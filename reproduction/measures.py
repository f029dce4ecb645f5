"""The figures of one encoder: of its heads, its features, and of localization with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.analysis.inspect import clip_rows
from tspcli.analysis.plot_data import foreground_rows, separation
from tspcli.annotations import read_actions
from tspcli.core.files import replacing
from tspcli.pretraining.training_log import read_results
from tspcli.store.store import open_store

RUN, FEATURES, RESULTS, MEASURES = "run", "features.h5", "results.json", "measures.json"


@dataclass(frozen=True)
class Column:
    """One figure of the table.

    Attributes:
        key: In ``measures.json``.
        title: For people.
        percent: Whether it is a share of 1, shown in percent.
    """

    key: str
    title: str
    percent: bool = True

    def show(self, values: Sequence[float | None]) -> str:
        """The mean over seeds, with the standard deviation where there are several."""
        numbers = [v for v in values if v is not None]
        if not numbers:
            return "–"
        scale, digits = (100.0, 2) if self.percent else (1.0, 3)
        text = f"{scale * float(np.mean(numbers)):.{digits}f}"
        if len(numbers) > 1:
            text += f" ± {scale * float(np.std(numbers, ddof=1)):.{digits}f}"
        return text


COLUMNS = (
    Column("map_0.50", "mAP@0.5"),
    Column("map_0.75", "mAP@0.75"),
    Column("map_0.95", "mAP@0.95"),
    Column("map", "mean mAP"),
    Column("ar_1", "AR@1"),
    Column("ar_10", "AR@10"),
    Column("ar_100", "AR@100"),
    Column("auc", "AUC"),
    Column("action_accuracy", "action head"),
    Column("region_accuracy", "region head"),
    Column("separation", "separation", percent=False),
)


def measure(
    store: Path,
    annotations: Path,
    run: Path,
    evaluation: Path,
    out: Path,
    *,
    subset: str | None = "validation",
) -> dict[str, float | None]:
    """Collect the figures of one encoder into a JSON file.

    Args:
        store: Its features.
        annotations: ActivityNet JSON or ground-truth table.
        run: The folder of its training; accuracies are those of the epoch that was chosen.
        evaluation: What ``tsp localize evaluate --json`` printed.
        out: The file to write.
        subset: Of the annotations.

    Returns:
        The figures by the keys of :data:`COLUMNS`; shares of 1, None where there is none.
    """
    figures = localization_figures(json.loads(evaluation.read_text(encoding="utf-8")))
    figures.update(head_figures(run))
    figures["separation"] = mean_separation(store, annotations, subset)
    with replacing(out) as aside:
        aside.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def localization_figures(evaluation: dict[str, Any]) -> dict[str, float | None]:
    """The figures of ``tsp localize evaluate --json`` by the keys of the table."""
    detection, proposals = evaluation["detection"], evaluation["proposals"]
    figures: dict[str, float | None] = {}
    if detection is not None:
        figures.update({f"map_{tiou}": value for tiou, value in detection["map"].items()})
        figures["map"] = detection["average_map"]
    figures.update({f"ar_{count}": value for count, value in proposals["ar"].items()})
    figures["auc"] = proposals["auc"]
    return figures


def head_figures(run: Path) -> dict[str, float | None]:
    """Accuracies of the heads on validation clips, at the epoch that was chosen."""
    if not (run / "results.jsonl").exists():
        return {}
    best = [epoch for epoch in read_results(run) if epoch.best][-1]
    return {key: value for key, value in best.valid.items() if key.endswith("_accuracy")}


def mean_separation(store: Path, annotations: Path, subset: str | None) -> float | None:
    """The mean over videos of the separation of foreground and background."""
    annotated = read_actions(annotations, subset)
    values = []
    with open_store(store) as opened:
        for key in opened:
            name = annotated.find(key)
            if name is None or not annotated[name].segments:
                continue
            video = opened[key]
            segments = annotated[name].segments
            inside = foreground_rows(video.center_s, segments)
            value = separation(video.rows, inside, apart=clip_rows(video))
            if value is not None:
                values.append(value)
    return float(np.mean(values)) if values else None
