"""The figures of one encoder: localization with its features, its heads, its errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tspcli.analysis.inspect import clip_rows
from tspcli.analysis.plot_data import foreground_rows, separation
from tspcli.annotations import Annotations, read_actions
from tspcli.core.files import replacing
from tspcli.localization.evaluation import evaluate
from tspcli.localization.matching import segment_tiou
from tspcli.localization.metrics import ACTIVITYNET_TIOUS, THUMOS14_TIOUS
from tspcli.localization.results import Prediction, proposals_path
from tspcli.pretraining.training_log import read_results as read_epochs
from tspcli.store import open_store

RUN, FEATURES, MEASURES = "run", "features.h5", "measures.json"
Figures = dict[str, float | None]

ERRORS = ("background", "localization", "confusion", "both", "double")
"""What a wrong prediction can be, in the manner of DETAD (Alwassel et al., ECCV 2018)."""
_ERRORS_TIOU, _BACKGROUND_TIOU, _PER_TRUTH = 0.5, 0.1, 10


def results_file(subset: str) -> str:
    """Where the predictions for a subset lie."""
    return f"results-{subset}.json"


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
        scale, digits = (100.0, 1) if self.percent else (1.0, 3)
        text = f"{scale * float(np.mean(numbers)):.{digits}f}"
        if len(numbers) > 1:
            text += f" ± {scale * float(np.std(numbers, ddof=1)):.{digits}f}"
        return text


COLUMNS = (
    Column("map", "mean mAP"),
    Column("map_0.50", "mAP@0.5"),
    Column("map_0.75", "mAP@0.75"),
    Column("map_0.95", "mAP@0.95"),
    Column("oracle_map", "mAP, true labels"),
    Column("unseen_map", "mAP, unseen scenes"),
    Column("auc", "AUC"),
    Column("ar_10", "AR@10"),
    Column("action_accuracy", "action head"),
    Column("region_accuracy", "region head"),
    Column("separation", "separation", percent=False),
    Column("background_share", "K", percent=False),
)


def measure(
    folder: Path,
    store: Path,
    weights: str,
    annotations: Path,
    subsets: Sequence[str],
    protocol: str,
) -> Figures:
    """Collect the figures of one encoder into ``measures.json``.

    Args:
        folder: Where the predictions lie and the figures go.
        store: Its features.
        weights: The encoder: a checkpoint of a run's folder, or a name.
        annotations: ActivityNet JSON or ground-truth table.
        subsets: Of the annotations; figures of the second are called ``unseen_…``.
        protocol: ``activitynet`` or ``thumos14``, which decides on the thresholds.

    Returns:
        The figures, most of them by the keys of :data:`COLUMNS`; shares of 1.
    """
    figures: Figures = {}
    for subset, prefix in zip(subsets, ("", "unseen_"), strict=False):
        annotated = read_actions(annotations, subset)
        found = localization_figures(annotated, folder / results_file(subset), protocol)
        figures.update({prefix + key: value for key, value in found.items()})
        figures[f"{prefix}separation"] = mean_separation(store, annotated)
        said = said_actions(store, weights)
        if said is not None:
            figures.update({prefix + k: v for k, v in head_figures(*said, annotated).items()})
    figures.update(last_epoch(Path(weights).parent))
    _write(folder, figures)
    return figures


def _write(folder: Path, figures: Figures) -> None:
    with replacing(folder / MEASURES) as aside:
        aside.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def localization_figures(annotated: Annotations, results: Path, protocol: str) -> Figures:
    """mAP, AR, AUC, mAP with true labels, and the shares of errors, of one results file."""
    tious = THUMOS14_TIOUS if protocol == "thumos14" else ACTIVITYNET_TIOUS
    evaluation = evaluate(annotated, results, tious=tious)
    figures: Figures = {}
    if evaluation.detection is not None:
        detection = evaluation.detection.to_dict()
        figures.update({f"map_{tiou}": value for tiou, value in detection["map"].items()})
        figures["map"] = detection["average_map"]
    proposals = evaluation.proposals.to_dict()
    figures.update({f"ar_{count}": value for count, value in proposals["ar"].items()})
    figures["auc"] = proposals["auc"]
    true = with_true_labels(annotated, _entries(proposals_path(results)))
    if true:
        oracle = evaluate(annotated, true, proposals=true, tious=tious).detection
        figures["oracle_map"] = None if oracle is None else oracle.to_dict()["average_map"]
    figures.update(error_shares(annotated, _entries(results)))
    return figures


def _entries(path: Path) -> dict[str, list[Prediction]]:
    data = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {
        name: [
            Prediction(e["segment"][0], e["segment"][1], e["score"], e.get("label"))
            for e in entries
        ]
        for name, entries in data.items()
    }


def with_true_labels(
    annotated: Annotations, proposals: Mapping[str, Sequence[Prediction]]
) -> dict[str, list[Prediction]]:
    """Proposals with the class of their video, for videos that have one class alone."""
    labelled = {}
    for name, found in proposals.items():
        key = annotated.find(name)
        classes = {s.label for s in annotated[key].segments} if key is not None else set()
        if len(classes) == 1:
            (label,) = classes
            labelled[name] = [proposal._replace(label=label) for proposal in found]
    return labelled


def error_shares(
    annotated: Annotations, results: Mapping[str, Sequence[Prediction]]
) -> dict[str, float | None]:
    """What the best predictions are: right, or which kind of error.

    Only the highest scores are looked at, ten predictions per action. At tIoU 0.5 each is right (an
    action of its class that no better prediction has found), a double detection, a localization
    error (its class, tIoU 0.1 to 0.5), a confusion (another class, tIoU at least 0.5), both
    (another class, tIoU 0.1 to 0.5), or background (tIoU below 0.1).

    Returns:
        ``error_KIND`` for each of :data:`ERRORS`, and ``missed``, the share of actions not found.
    """
    n_truths = sum(len(annotated[key].segments) for key in annotated)
    flat = [(p, key) for name, found in results.items() if (key := annotated.find(name))
            for p in found]  # fmt: skip
    flat.sort(key=lambda item: -item[0].score)
    taken: dict[str, set[int]] = {}
    counts = dict.fromkeys((*ERRORS, "right"), 0)
    for prediction, key in flat[: _PER_TRUTH * n_truths]:
        segments = annotated[key].segments
        bounds = np.array([(s.start_s, s.end_s) for s in segments], dtype=np.float64)
        bounds = bounds.reshape(-1, 2)
        own = np.array([prediction.start_s]), np.array([prediction.end_s])
        tiou = segment_tiou(*own, bounds[:, 0], bounds[:, 1])
        same = np.array([s.label == prediction.label for s in segments], dtype=bool)
        counts[_kind(tiou, same, taken.setdefault(key, set()))] += 1
    n_found = sum(len(found) for found in taken.values())
    n_looked_at = max(1, sum(counts.values()))
    figures: dict[str, float | None] = {f"error_{k}": counts[k] / n_looked_at for k in ERRORS}
    figures["missed"] = 1 - n_found / n_truths if n_truths else None
    return figures


def _kind(tiou: npt.NDArray[np.float64], same: npt.NDArray[np.bool_], taken: set[int]) -> str:
    """What one prediction is; a truth that it finds joins ``taken``."""
    own = np.where(same, tiou, 0.0)
    for place in np.argsort(-own):
        if own[place] >= _ERRORS_TIOU and int(place) not in taken:
            taken.add(int(place))
            return "right"
    if own.max(initial=0.0) >= _ERRORS_TIOU:
        return "double"
    if own.max(initial=0.0) >= _BACKGROUND_TIOU:
        return "localization"
    other = np.where(same, 0.0, tiou).max(initial=0.0)
    if other >= _ERRORS_TIOU:
        return "confusion"
    return "both" if other >= _BACKGROUND_TIOU else "background"


Said = dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]
"""Row centres in seconds and the class that an action head says of each row, by video."""


def said_actions(store: Path, weights: str) -> tuple[Said, tuple[str, ...]] | None:
    """What the action head of an encoder says of each row of a store.

    Returns:
        That, and the class names; None if the encoder has no action head or no names for it.
    """
    import torch

    from tspcli.encoders import load_checkpoint

    checkpoint = load_checkpoint(weights)
    names = checkpoint.class_names
    if checkpoint.heads.n_actions is None or names is None:
        return None
    model = checkpoint.build_model().eval()

    said: Said = {}
    with open_store(store) as opened, torch.no_grad():
        for key in opened:
            video = opened[key]
            logits = model.action_logits(torch.from_numpy(video.rows))
            assert logits is not None
            said[key] = (video.center_s, logits.argmax(dim=1).numpy())
    return said, tuple(names)


def head_figures(said: Said, names: Sequence[str], annotated: Annotations) -> Figures:
    """How often the action head says a video's class, in its actions and in its background.

    Args:
        said: What it says.
        names: Of the classes.
        annotated: The actions.

    Returns:
        ``says_inside``, ``says_outside`` and ``background_share``, their ratio: the K of the
        design, 1 if the head sees no difference, the share of chance if it needs the action.
    """
    inside_hits, outside_hits = [], []
    for key, (centers_s, classes_said) in said.items():
        name = annotated.find(key)
        if name is None or not annotated[name].segments:
            continue
        segments = annotated[name].segments
        classes = [names.index(s.label) for s in segments if s.label in names]
        inside = foreground_rows(centers_s, segments)
        hits = np.isin(classes_said, classes)
        inside_hits.append(hits[inside])
        outside_hits.append(hits[~inside])
    if not inside_hits:
        return {}
    inside_share = float(np.concatenate(inside_hits).mean())
    outside_share = float(np.concatenate(outside_hits).mean())
    ratio = outside_share / inside_share if inside_share else None
    return {
        "says_inside": inside_share,
        "says_outside": outside_share,
        "background_share": ratio,
    }


def last_epoch(run: Path) -> Figures:
    """Accuracies of the heads on training and validation clips, at the last epoch."""
    if not (run / "results.jsonl").exists():
        return {}
    last = read_epochs(run)[-1]
    figures: Figures = {k: v for k, v in last.valid.items() if k.endswith("_accuracy")}
    figures.update({f"train_{k}": v for k, v in last.train.items() if k.endswith("_accuracy")})
    return figures


def single_frame_figures(
    folder: Path, single: Path, clips: Path, annotations: Path, n_classes: int
) -> Figures:
    """What the scene gives away, into ``measures.json``.

    Args:
        folder: Where features of untrimmed videos by the classifier of single frames lie.
        single: The run of that classifier.
        clips: The run of the classifier of clips, trained on the same trimmed clips.
        annotations: Of the untrimmed videos.
        n_classes: Which decides on chance.

    Returns:
        ``single_frame_accuracy`` and ``clip_accuracy`` on trimmed validation clips, and R, their
        ratio above chance, as ``scene_ratio``; the accuracy of single frames inside the actions of
        untrimmed validation videos, ``untrimmed_accuracy``, and its ratio to that on trimmed clips,
        ``kept``, which the design wants to be at least 0.9.
    """
    said = said_actions(folder / FEATURES, str(single / "last.pth"))
    assert said is not None
    inside = head_figures(*said, read_actions(annotations, "validation"))["says_inside"]
    frames, whole = (read_epochs(run)[-1].valid["action_accuracy"] for run in (single, clips))
    assert inside is not None
    figures: Figures = {
        "single_frame_accuracy": frames,
        "clip_accuracy": whole,
        "scene_ratio": (frames - 1 / n_classes) / (whole - 1 / n_classes),
        "untrimmed_accuracy": inside,
        "kept": inside / frames,
    }
    _write(folder, figures)
    return figures


def mean_separation(store: Path, annotated: Annotations) -> float | None:
    """The mean over videos of the separation of foreground and background."""
    values = []
    with open_store(store) as opened:
        for key in opened:
            name = annotated.find(key)
            if name is None or not annotated[name].segments:
                continue
            video = opened[key]
            inside = foreground_rows(video.center_s, annotated[name].segments)
            value = separation(video.rows, inside, apart=clip_rows(video))
            if value is not None:
                values.append(value)
    return float(np.mean(values)) if values else None
