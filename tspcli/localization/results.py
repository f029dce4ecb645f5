"""Predicted segments, and the JSON in which the ActivityNet challenges exchange them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tspcli.annotations import Annotations
from tspcli.annotations.text_files import collector_paused, load_json, require_one_form
from tspcli.core.files import file_sha256
from tspcli.core.text import refuses_damage
from tspcli.errors import AnnotationError

VERSION = "VERSION 1.3"
_SHAPE = '{"version": …, "results": {ID: [{"segment", "label", "score"}]}, "external_data": {}}'


class Prediction(NamedTuple):
    """One predicted action; times in seconds after the first frame; no label for bare proposals."""

    start_s: float
    end_s: float
    score: float
    label: str | None = None


class SegmentTable(NamedTuple):
    """Segments of many videos in columns, M of them.

    Attributes:
        videos: Names; ``video`` holds indices into it.
        labels: Class names; ``label`` holds indices into it, -1 for none.
        video: (M,) int64.
        label: (M,) int64.
        start_s: (M,) float64.
        end_s: (M,) float64.
        score: (M,) numbers; empty for ground truth.
    """

    videos: tuple[str, ...]
    labels: tuple[str, ...]
    video: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    score: npt.NDArray[Any]

    def __len__(self) -> int:
        return self.video.shape[0]


Results = Mapping[str, Sequence[Prediction]]
"""Predictions of each video by the name that the annotations use."""


def result_name(key: str) -> str:
    """A store's key as results name the video: without ActivityNet's ``v_``."""
    return key.removeprefix("v_")


def proposals_path(results: str | Path) -> Path:
    """Where the proposals of a results file lie: ``found.proposals.json`` of ``found.json``."""
    path = Path(results)
    return path.with_name(f"{path.stem}.proposals.json")


def ground_truth_table(annotations: Annotations, blocked: Iterable[str] = ()) -> SegmentTable:
    """The annotated actions in columns, leaving out the videos in ``blocked``.

    Raises:
        AnnotationError: If an action ends before it starts.
    """
    gone = set(blocked)
    require_forward(annotations)
    rows = [
        (name, segment)
        for name, video in annotations.items()
        if name not in gone
        for segment in video.segments
    ]
    return table_of(
        [name for name, _ in rows],
        [segment.label for _, segment in rows],
        [segment.start_s for _, segment in rows],
        [segment.end_s for _, segment in rows],
        [],
    )


def require_forward(annotations: Annotations) -> None:
    """Raise if an action ends before it starts; it may have no length, as some of ActivityNet's.

    Raises:
        AnnotationError: Naming the first.
    """
    for name, video in annotations.items():
        for start_s, end_s, label, _ in video.segments:
            if not start_s <= end_s:
                raise AnnotationError(
                    f"{annotations.path or 'The annotations'}, video {name!r}: {label!r} ends at "
                    f"{end_s:g} s, before it starts at {start_s:g} s.",
                    remedy="Correct it; `tsp annotations check` names all of them.",
                )


def results_table(results: Results, blocked: Iterable[str] = ()) -> SegmentTable:
    """Predictions in columns, in the order of the mapping, without the videos in ``blocked``.

    Raises:
        AnnotationError: If one ends before it starts, or has a value that is not finite; if a video
            appears in two Unicode forms.
    """
    require_one_form(results, "The results")
    gone = set(blocked)
    kept = [(name, items) for name, items in results.items() if name not in gone]
    flat = [item for _, items in kept for item in items]
    for name, items in kept:
        for item in items:
            if not (np.isfinite(item[:3]).all() and item.start_s <= item.end_s):
                raise _bad_entry("The results", name, item)
    return table_of(
        [name for name, items in kept for _ in items],
        [item.label for item in flat],
        [item.start_s for item in flat],
        [item.end_s for item in flat],
        [item.score for item in flat],
    )


@refuses_damage(AnnotationError, f"Expected {_SHAPE}.")
def read_results(path: str | Path, blocked: Iterable[str] = ()) -> SegmentTable:
    """Read a results JSON into columns, in the order of the file.

    Args:
        path: The file.
        blocked: Names of videos to leave out.

    Raises:
        AnnotationError: If it is not such a file, naming the video and the entry that is wrong.
    """
    with collector_paused():
        return _parse_results(path, load_json(path, "results"), set(blocked))


def write_results(
    path: str | Path,
    results: Results,
    *,
    proposals: Results | None = None,
    version: str = VERSION,
) -> None:
    """Write a results JSON, completely or not at all; names lose ActivityNet's ``v_``.

    Args:
        path: The file.
        results: Predictions, each proposal perhaps several times, with several labels.
        proposals: Each proposal once with its own score, for the recall. They are written to
            :func:`proposals_path`, a file of the same format, and the results hold its name and
            sha256 in ``external_data``, so that evaluating finds it.
        version: Of the format.

    Raises:
        AnnotationError: If two videos have one name.
    """
    external: dict[str, Any] = {}
    if proposals is not None:
        beside = proposals_path(path)
        _write(beside, proposals, external, version)
        external = {"proposals": {"file": beside.name, "sha256": file_sha256(beside)}}
    _write(path, results, external, version)


@refuses_damage(AnnotationError, f"Expected {_SHAPE}.")
def read_linked_results(
    path: str | Path, blocked: Iterable[str] = ()
) -> tuple[SegmentTable, Path | None]:
    """:func:`read_results`, and the file of proposals that the JSON names, None if it names none.

    Raises:
        AnnotationError: Likewise; also if the proposals are missing or have changed.
    """
    with collector_paused():
        data = load_json(path, "results")
        return _parse_results(path, data, set(blocked)), _linked_proposals(path, data)


def _linked_proposals(path: str | Path, data: Any) -> Path | None:
    external = data.get("external_data") if isinstance(data, dict) else None
    link = external.get("proposals") if isinstance(external, dict) else None
    if not isinstance(link, dict) or not isinstance(link.get("file"), str):
        return None
    found = Path(path).parent / Path(link["file"]).name
    remedy = "Predict again, or give the proposals that belong to the results with --proposals."
    if not found.is_file():
        raise AnnotationError(
            f"{path} refers to proposals in {found}, which does not exist.",
            remedy=remedy,
            path=found,
        )
    if file_sha256(found) != link.get("sha256"):
        raise AnnotationError(
            f"{found} does not hold the proposals of {path}.", remedy=remedy, path=found
        )
    return found


def _write(path: str | Path, results: Results, external: Mapping[str, Any], version: str) -> None:
    from tspcli.core.files import replacing  # brings HDF5, which the metrics do not need

    named = {
        result_name(name): [_entry(prediction) for prediction in predictions]
        for name, predictions in results.items()
    }
    if len(named) != len(results):
        raise AnnotationError(
            "Two videos have one name once 'v_' is removed.", remedy="Rename one of them."
        )
    require_one_form(named, path)
    content = {"version": version, "results": named, "external_data": dict(external)}
    with replacing(path) as aside:
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _parse_results(path: str | Path, data: Any, gone: set[str]) -> SegmentTable:
    results = data.get("results") if isinstance(data, dict) else None
    if not isinstance(results, dict):
        raise AnnotationError(f"{path} holds no 'results'.", remedy=f"Expected {_SHAPE}.")
    require_one_form(results, path)
    names: list[str] = []
    flat: list[dict[str, Any]] = []
    for name, items in results.items():
        if name in gone:
            continue
        if not isinstance(items, list):
            raise _bad_entry(path, name, items)
        names.extend([name] * len(items))
        flat.extend(items)
    try:
        table = table_of(
            names,
            [item.get("label") for item in flat],
            [item["segment"][0] for item in flat],
            [item["segment"][1] for item in flat],
            [item["score"] for item in flat],
        )
        sound = bool(
            np.isfinite(table.start_s).all()
            and np.isfinite(table.end_s).all()
            and np.isfinite(table.score).all()
            and (table.start_s <= table.end_s).all()
            and all(isinstance(label, str) for label in table.labels)
            and all(type(item["segment"]) is list and len(item["segment"]) == 2 for item in flat)
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        sound = False
    if not sound:
        name, item = next(pair for pair in zip(names, flat, strict=True) if not _is_sound(pair[1]))
        raise _bad_entry(path, name, item)
    return table


def _entry(prediction: Prediction) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "segment": [prediction.start_s, prediction.end_s],
        "score": prediction.score,
    }
    if prediction.label is not None:
        entry["label"] = prediction.label
    return entry


def table_of(
    names: Sequence[str],
    labels: Sequence[str | None],
    starts: Sequence[float],
    ends: Sequence[float],
    scores: Sequence[float],
) -> SegmentTable:
    """Segments of which each property is given as one sequence; no scores for ground truth."""
    videos = {name: index for index, name in enumerate(dict.fromkeys(names))}
    classes: dict[str | None, int] = {
        label: index
        for index, label in enumerate(label for label in dict.fromkeys(labels) if label is not None)
    }
    score = np.array(scores)
    if score.dtype.kind not in "iuf":
        score = score.astype(np.float64)
    return SegmentTable(
        tuple(videos),
        tuple(label for label in classes if label is not None),
        np.fromiter(map(videos.__getitem__, names), np.int64, len(names)),
        np.array([classes.get(label, -1) for label in labels], np.int64),
        np.array(starts, np.float64),
        np.array(ends, np.float64),
        score,
    )


def _is_sound(item: Any) -> bool:
    try:
        (start, end), score = item["segment"], item["score"]
        values = np.array([start, end, score], np.float64)
        ordered = isinstance(item["segment"], list) and values[0] <= values[1]
        finite = bool(np.isfinite(values).all())
        return finite and bool(ordered) and isinstance(item.get("label"), str | None)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return False


def _bad_entry(path: str | Path, name: str, item: Any) -> AnnotationError:
    shown = repr(item)
    return AnnotationError(
        f"{path}, video {name!r}: {shown[:120]} is neither a list of predictions nor a prediction.",
        remedy=f"Expected {_SHAPE}, times and scores finite, no end before its start.",
    )
