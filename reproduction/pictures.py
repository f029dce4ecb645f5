"""The report's pictures, as PNG in data URIs."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction.measures import FEATURES, RESULTS, RUN
from reproduction.outcome import TAC, TSP, Group
from reproduction.stages import STDOUT_FILE
from tspcli.annotations import Annotations, read_actions
from tspcli.errors import DependencyError
from tspcli.localization.prediction import VideoPrediction
from tspcli.localization.results import Prediction
from tspcli.localization.timeline_picture import draw_timeline
from tspcli.pretraining.training_log import read_results
from tspcli.store.store import open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_TIMELINES = 3


def require_matplotlib() -> None:
    """Raise a :class:`DependencyError` where there is none."""
    try:
        import matplotlib  # noqa: F401 (whether it is there)
    except ImportError as error:
        raise DependencyError(
            "The report needs matplotlib, which is not installed.",
            remedy='Install it with: pip install "tspcli[plots]"',
        ) from error


def png_uri(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def training_curves(group: Group) -> str:
    """Losses and accuracies on validation over the epochs, one line an encoder and seed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    keys = ("loss", "action_accuracy", "region_accuracy")
    for number, (name, title) in enumerate(group.titles.items()):
        for turn, seed in enumerate(group.seeds):
            run = group.folder(seed, name) / RUN
            if not (run / "results.jsonl").exists():
                continue
            epochs = read_results(run)
            for axes, key in zip(panels, keys, strict=True):
                points = [(e.epoch + 1, e.valid[key]) for e in epochs if key in e.valid]
                if points:
                    scale = 1 if key == "loss" else 100
                    axes.plot(
                        [x for x, _ in points],
                        [scale * y for _, y in points],
                        color=f"C{number}",
                        alpha=0.85,
                        linewidth=1.2,
                        label=None if turn else title,
                    )
    for axes, label in zip(
        panels, ("validation loss", "action head, %", "region head, %"), strict=True
    ):
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return png_uri(figure)


def localization_curves(group: Group) -> str:
    """MAP over the tIoU, and average recall over the number of proposals; means over seeds."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    detection, proposals = figure.subplots(1, 2)
    for number, (name, title) in enumerate(group.titles.items()):
        found = [evaluation(group, seed, name) for seed in group.seeds]
        color = f"C{number}"
        if all(item["detection"] is not None for item in found):
            tious = [float(t) for t in found[0]["detection"]["map"]]
            maps = np.array([list(item["detection"]["map"].values()) for item in found])
            detection.plot(tious, 100 * maps.mean(axis=0), color=color, marker=".", label=title)
            if len(found) > 1:
                low, high = 100 * maps.min(axis=0), 100 * maps.max(axis=0)
                detection.fill_between(tious, low, high, color=color, alpha=0.12, linewidth=0)
        recall = np.array([item["proposals"]["average_recall"] for item in found])
        counts = np.array([item["proposals"]["average_proposals"] for item in found]).mean(axis=0)
        proposals.plot(counts, 100 * recall.mean(axis=0), color=color, linewidth=1.2)
    detection.set_xlabel("tIoU")
    detection.set_ylabel("mAP, %")
    proposals.set_xlabel("average number of proposals a video")
    proposals.set_ylabel("average recall, %")
    for axes in (detection, proposals):
        axes.grid(alpha=0.25)
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return png_uri(figure)


def evaluation(group: Group, seed: int, name: str) -> dict[str, Any]:
    """What ``tsp localize evaluate`` printed of one encoder."""
    text = (group.folder(seed, f"{name}.bmn") / STDOUT_FILE).read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def example_videos(group: Group) -> list[str]:
    """Keys of three annotated videos: the first, the middle and the last by name, not chosen."""
    annotated = read_actions(group.annotations, group.subset)
    with open_store(group.folder(group.seeds[0], f"{TSP}.features") / FEATURES) as store:
        keys = sorted(key for key in store if _segments(annotated, key))
    if len(keys) <= N_TIMELINES:
        return keys
    return [keys[0], keys[len(keys) // 2], keys[-1]]


def similarity_picture(group: Group, key: str) -> str:
    """Similarities of the clips of one video: TAC beside TSP, in one scale."""
    from tspcli.analysis.picture import write_picture
    from tspcli.analysis.plot_data import PlotData, view_features

    annotated = read_actions(group.annotations, group.subset)
    segments = _segments(annotated, key)
    views = []
    for name in (TAC, TSP):
        with open_store(group.folder(group.seeds[0], f"{name}.features") / FEATURES) as store:
            views.append(view_features(store[key], group.titles[name], segments))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        write_picture(PlotData(key, views, segments), path, dpi=110)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def timeline_picture(group: Group, key: str) -> str:
    """What TSP's features let the localizer find in one video, under what is annotated."""
    annotated = read_actions(group.annotations, group.subset)
    folder = group.folder(group.seeds[0], f"{TSP}.bmn")
    results: Mapping[str, Sequence[Mapping[str, Any]]]
    results = json.loads((folder / RESULTS).read_text("utf-8"))["results"]
    found = [
        Prediction(item["segment"][0], item["segment"][1], item["score"], item.get("label"))
        for item in results.get(key.removeprefix("v_"), results.get(key, []))
    ]
    with open_store(group.folder(group.seeds[0], f"{TSP}.features") / FEATURES) as store:
        duration_s = store[key].duration_s or float(store[key].end_s[-1])
    video = VideoPrediction(key, duration_s, sorted(found, key=lambda item: -item.score))
    return png_uri(draw_timeline(video, _segments(annotated, key), shown=6))


def _segments(annotated: Annotations, key: str) -> tuple[Any, ...]:
    name = annotated.find(key)
    return () if name is None else annotated[name].segments
