"""What the page shows: stores, video files, annotations and predictions, paired by name.

Videos have opaque ids, their positions in the list; the page never sends a path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tspcli.analysis.moments import MomentIndex
from tspcli.annotations import read_annotations
from tspcli.annotations.editing import (
    ChangedMeanwhileError,
    EditableAnnotations,
    EditedSegment,
    open_for_editing,
)
from tspcli.core.text import first_line
from tspcli.core.video_names import pair_names
from tspcli.errors import AnnotationError, TspError
from tspcli.localization.results import read_results
from tspcli.sampling.resampling import FloatArray
from tspcli.store.store import FeatureStore
from tspcli.video.inputs import VideoFile
from tspcli.video.source import VideoInfo

TIOU = 0.5
"""At which a prediction is held to find an annotated action, as in ActivityNet's first column."""

MOST_PREDICTIONS = 2000
"""Of a video, the best; pages draw no more."""


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of the encoder that made the rows, as plain arrays.

    Attributes:
        classes: Names of the action head's classes.
        action: Its weight and bias, shapes (C, D) and (C,); None without an action head.
        region: Those of the region head, (2, D) and (2,), foreground first; None without one, or
            where it also takes a global feature, which a store does not hold.
        note: Why something is missing, for people; empty if nothing is.
    """

    classes: tuple[str, ...] = ()
    action: tuple[FloatArray, FloatArray] | None = None
    region: tuple[FloatArray, FloatArray] | None = None
    note: str = ""


NO_HEADS = Heads()


class Prediction(NamedTuple):
    """A predicted segment, times in seconds; the label is empty for bare proposals."""

    start_s: float
    end_s: float
    score: float
    label: str


class Errors(NamedTuple):
    """How a video's predictions above a score fare against its annotations.

    Attributes:
        missed: Annotated actions that no prediction of their label finds.
        false: Predictions that find none.
        worst_tiou: The least, over annotated actions, of the best tIoU with a prediction of the
            label; None without annotated actions.
    """

    missed: int
    false: int
    worst_tiou: float | None


class _Facts(NamedTuple):
    """What the list shows of a video's rows."""

    seconds: float | None
    n_rows: int
    n_warnings: int


@dataclass(eq=False)
class Workspace:
    """Everything that the command was given, opened.

    Attributes:
        stores: The store, and perhaps the one to compare it with.
        files: The video file of each key that has one.
        annotations_path: The file that edits are saved to, or None.
        columns: Names of its columns by role, if it is a table in which they are not recognised.
        predictions_path: Results of `tsp localize predict`, or None.
        load_heads: Loads the heads of the encoder; called on a thread of its own.
        heads: What it gave; None until then.
        keys: The videos of the first store, by number.
        document: The annotations, if they can be edited.
        read_only: Why they cannot, in words.
    """

    stores: list[FeatureStore]
    files: Mapping[str, VideoFile] = field(default_factory=dict)
    annotations_path: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    predictions_path: Path | None = None
    load_heads: Callable[[], Heads] = lambda: NO_HEADS
    heads: Heads | None = None

    def __post_init__(self) -> None:
        self.keys = list(self.stores[0])
        self.document: EditableAnnotations | None = None
        self.read_only = ""
        self._fixed: dict[str, list[EditedSegment]] = {}
        self._pairs: dict[str, str] = {}
        self._paired_with: object = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._index: MomentIndex | None = None
        if self.annotations_path is not None:
            self._open_annotations(self.annotations_path)
        self._facts: dict[str, _Facts] = {}
        self._closed = threading.Event()
        self._facts_reader = threading.Thread(target=self._read_facts, daemon=True)
        self._facts_reader.start()
        # torch alone takes seconds to import.
        threading.Thread(target=self._load_heads, daemon=True).start()

    def close(self) -> None:
        """Read no more, so that the stores can be closed."""
        self._closed.set()
        self._facts_reader.join()

    def _load_heads(self) -> None:
        try:
            self.heads = self.load_heads()
        except Exception as error:  # the page waits for an answer, whatever is wrong
            self.heads = Heads(note=first_line(error))

    def _open_annotations(self, path: Path) -> None:
        try:
            self.document = open_for_editing(path, self.columns)
        except AnnotationError as error:
            # A dialect that can be read, but not edited in place.
            found = read_annotations(path, columns=self.columns)
            self._fixed = {
                name: [EditedSegment(s.start_s, s.end_s, s.label) for s in video.segments]
                for name, video in found.items()
            }
            self.read_only = str(error.remedy or error)

    # --- videos ------------------------------------------------------------------------------

    def key(self, number: int) -> str:
        """The key of a video.

        Raises:
            LookupError: If there is no such video.
        """
        if not 0 <= number < len(self.keys):
            raise LookupError(f"there is no video {number}")
        return self.keys[number]

    def counterpart(self, key: str, store: int) -> str | None:
        """The key of the same video in another of the stores, or None."""
        return key if store == 0 else self._counterparts.get(key)

    @cached_property
    def _counterparts(self) -> dict[str, str]:
        return pair_names(self.keys, self.stores[1]) if len(self.stores) > 1 else {}

    @lru_cache(maxsize=64)  # noqa: B019  # one workspace lives as long as the program
    def info(self, key: str) -> VideoInfo | None:
        """What the video's file says about itself; None without a file that can be opened."""
        from tspcli.video import probe

        file = self.files.get(key)
        try:
            return None if file is None else probe(file.path)
        except TspError:
            return None

    def describe(self) -> tuple[list[dict[str, Any]], bool]:
        """What the list shows of every video, and whether that is all.

        The facts are plain values, None for what is unknown or, in the beginning, not read yet.
        """
        complete, errors, rows = len(self._facts) == len(self.keys), self.errors(), []
        for number, key in enumerate(self.keys):
            facts, wrong = self._facts.get(key), errors.get(key)
            rows.append(
                {
                    "id": number,
                    "name": key,
                    "seconds": None if facts is None else facts.seconds,
                    "rows": None if facts is None else facts.n_rows,
                    "warnings": None if facts is None else facts.n_warnings,
                    "annotated": len(self.segments_of(key)),
                    "predicted": len(self.predictions_of(key)),
                    "missed": None if wrong is None else wrong.missed,
                    "false": None if wrong is None else wrong.false,
                    "worst": None if wrong is None else wrong.worst_tiou,
                }
            )
        return rows, complete

    def _read_facts(self) -> None:
        # A thread of its own: the attributes of 10,000 videos take HDF5 seconds.
        for key in self.keys:
            if self._closed.is_set():
                return
            video = self.stores[0][key]
            seconds = video.duration_s
            if seconds is None and video.n_rows and video.sampling is not None:
                seconds = float(video.end_s[-1])
            self._facts[key] = _Facts(seconds, video.n_rows, len(video.warnings))

    # --- annotations ---------------------------------------------------------------------------

    @property
    def segments(self) -> Mapping[str, Sequence[EditedSegment]]:
        """Annotated segments by the annotations' names."""
        return self._fixed if self.document is None else self.document.segments

    @property
    def version(self) -> str | None:
        """The version of the annotations that can be edited, or None."""
        return None if self.document is None else self.document.version

    def annotated_name(self, key: str) -> str:
        """The name under which a video is, or would be, annotated."""
        known = self.segments
        if self._paired_with is not known:
            self._pairs, self._paired_with = pair_names(self.keys, known), known
        return self._pairs.get(key, key)

    def segments_of(self, key: str) -> list[EditedSegment]:
        """A video's annotated segments."""
        return list(self.segments.get(self.annotated_name(key), ()))

    def labels(self) -> list[str]:
        """Every label of the annotations and the predictions, sorted."""
        known = {s.label for own in self.segments.values() for s in own}
        known |= {p.label for own in self._predictions.values() for p in own if p.label}
        return sorted(known)

    def save(self, version: str, changes: Mapping[str, Sequence[EditedSegment]]) -> None:
        """Save all segments of some videos, by key.

        Args:
            version: The version that was edited.
            changes: The segments.

        Raises:
            ChangedMeanwhileError: If the annotations are of another version by now; they are read
                again.
            AnnotationError: If they cannot be edited, or a segment is none.
        """
        with self._lock:
            if self.document is None:
                raise AnnotationError(self.read_only or "No --annotations were given.")
            named = {self.annotated_name(key): list(own) for key, own in changes.items()}
            try:
                if version != self.document.version:
                    raise ChangedMeanwhileError(self.document.reopened())
                self.document = self.document.save(named)
            except ChangedMeanwhileError as error:
                self.document = error.current
                raise

    # --- predictions ---------------------------------------------------------------------------

    @cached_property
    def _predictions(self) -> dict[str, list[Prediction]]:
        if self.predictions_path is None:
            return {}
        table = read_results(self.predictions_path)
        labels = (*table.labels, "")  # -1 means none
        found: dict[str, list[Prediction]] = {}
        for row in np.argsort(-table.score, kind="stable"):
            one = Prediction(
                float(table.start_s[row]),
                float(table.end_s[row]),
                float(table.score[row]),
                labels[table.label[row]],
            )
            found.setdefault(table.videos[table.video[row]], []).append(one)
        pairs = pair_names(self.keys, found)
        return {key: found[name][:MOST_PREDICTIONS] for key, name in pairs.items()}

    def predictions_of(self, key: str) -> list[Prediction]:
        """A video's predictions, the best first."""
        return self._predictions.get(key, [])

    @cached_property
    def score_threshold(self) -> float:
        """The score at which predictions fit the annotations best: the highest F1 at tIoU 0.5."""
        hits: list[tuple[float, bool]] = []
        n_actions = 0
        for key in self.keys:
            segments, predictions = self.segments_of(key), self.predictions_of(key)
            if segments and predictions:
                found = _found_actions(segments, predictions)
                hits += [(p.score, f is not None) for p, f in zip(predictions, found, strict=True)]
                n_actions += len(segments)
        if not hits:
            return 0.0
        hits.sort(key=lambda hit: -hit[0])
        right = np.cumsum([hit for _, hit in hits])
        f1 = 2 * right / (np.arange(1, len(hits) + 1) + n_actions)
        return hits[int(f1.argmax())][0]

    def errors(self) -> dict[str, Errors]:
        """The errors of each video of which annotations and predictions were given."""
        if self.predictions_path is None or not self.segments:
            return {}
        return {
            key: _errors(segments, self.predictions_of(key), self.score_threshold)
            for key in self.keys
            if (segments := self.segments_of(key))
        }

    # --- what takes time -----------------------------------------------------------------------

    @property
    def index(self) -> MomentIndex:
        """The rows of the first store, read when something is searched for the first time."""
        with self._reading:
            self._index = self._index or MomentIndex(self.stores[:1])
            return self._index


def _tiou(segment: EditedSegment, prediction: Prediction) -> float:
    shared = min(segment.end_s, prediction.end_s) - max(segment.start_s, prediction.start_s)
    if shared <= 0:
        return 0.0
    lengths = (segment.end_s - segment.start_s) + (prediction.end_s - prediction.start_s)
    return shared / (lengths - shared)


def _fits(segment: EditedSegment, prediction: Prediction) -> bool:
    return prediction.label in ("", segment.label)


def _found_actions(
    segments: Sequence[EditedSegment], predictions: Sequence[Prediction]
) -> list[int | None]:
    """The action that each prediction, the best first, finds; an action is found once."""
    free = set(range(len(segments)))
    found: list[int | None] = []
    for prediction in predictions:
        best = max(
            (n for n in free if _fits(segments[n], prediction)),
            key=lambda n: _tiou(segments[n], prediction),
            default=None,
        )
        if best is not None and _tiou(segments[best], prediction) < TIOU:
            best = None
        free.discard(-1 if best is None else best)
        found.append(best)
    return found


def _errors(
    segments: Sequence[EditedSegment], predictions: Sequence[Prediction], threshold: float
) -> Errors:
    kept = [p for p in predictions if p.score >= threshold]
    found = _found_actions(segments, kept)
    best = [max((_tiou(s, p) for p in kept if _fits(s, p)), default=0.0) for s in segments]
    n_found = sum(action is not None for action in found)
    return Errors(len(segments) - n_found, len(kept) - n_found, min(best))
