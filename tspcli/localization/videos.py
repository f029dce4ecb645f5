"""Which videos of which stores are annotated how: the material of training and of prediction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tspcli.annotations import AnnotatedVideo, Annotations, Segment
from tspcli.errors import LocalizationError, StoreMismatchError
from tspcli.features.store import FeatureStore, VideoFeatures, open_store
from tspcli.localization.results import require_forward
from tspcli.timeline import Sampling

Paths = str | Path | Sequence[str | Path]

_DECISIVE = ("backbone", "weights_sha256", "preprocessing")
"""Settings that make features another thing altogether; precision and stride do not."""


@dataclass(frozen=True)
class LocalizationVideo:
    """One video with features.

    Attributes:
        features: Its rows and their seconds.
        duration_s: The store's, else the annotated one, else the end of the last clip.
        segments: Its actions; empty without annotations.
    """

    features: VideoFeatures
    duration_s: float
    segments: tuple[Segment, ...] = ()

    @property
    def key(self) -> str:
        """Its key in the store."""
        return self.features.key


class FeatureSet(Mapping[str, VideoFeatures]):
    """The videos of one or more stores, seen as one; made by :func:`open_features`.

    Attributes:
        settings: What the features depend on, as the first store tells it; empty if none does.
        weights, weights_path: The encoder's name, and its place if it is a file of the user's.
        dim: C, the width of a feature.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self._of_key: dict[str, FeatureStore] = {}
        told = [store for store in stores if store.metadata.settings]
        for store in told[1:]:
            told[0].metadata.require_same(store.metadata, str(told[0].path), str(store.path))
        self.settings: dict[str, Any] = dict(told[0].metadata.settings) if told else {}
        self.weights = told[0].metadata.weights if told else None
        self.weights_path = told[0].metadata.weights_path if told else None
        self.dim = 0
        for store in stores:
            for key in store:
                if key in self._of_key:
                    raise LocalizationError(
                        f"{store.path} and {self._of_key[key].path} both hold {key!r}.",
                        remedy="Give stores of different videos.",
                    )
                self._of_key[key] = store
        for key in self._of_key:
            dim = self[key].dim
            if self.dim and dim != self.dim:
                raise LocalizationError(
                    f"The features of {key!r} have width {dim}, those before it {self.dim}.",
                    remedy="Give stores of one encoder.",
                )
            self.dim = dim
        if not self._of_key:
            raise LocalizationError("The stores hold no video.", remedy="Check the path.")

    def __getitem__(self, key: str) -> VideoFeatures:
        return self._of_key[key][key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_key)

    def __len__(self) -> int:
        return len(self._of_key)


@contextmanager
def open_features(paths: Paths, *, sampling: Sampling | None = None) -> Iterator[FeatureSet]:
    """Open one or more feature stores as one.

    Args:
        paths: HDF5 files; the released features come as one for each subset.
        sampling: Where rows lie in time, for files that do not tell it.

    Raises:
        StoreError: If one cannot be read.
        StoreMismatchError: If they were made with different settings.
        LocalizationError: If two hold one video, or they hold none.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(path, sampling=sampling)) for path in several]
        yield FeatureSet(stores)


def describe(features: VideoFeatures, annotated: AnnotatedVideo | None) -> LocalizationVideo:
    """A video with its duration and, if it is annotated, its actions.

    Raises:
        StoreError: If the store does not tell at which seconds rows lie.
        LocalizationError: If it has no rows.
    """
    if not features.n_rows:
        raise LocalizationError(
            f"The video {features.key!r} has no features.", remedy="Leave it out, or extract it."
        )
    duration_s = features.duration_s
    if duration_s is None and annotated is not None:
        duration_s = annotated.duration_s
    if duration_s is None:
        duration_s = float(features.end_s[-1])
    segments = () if annotated is None else annotated.segments
    return LocalizationVideo(features, duration_s, segments)


def annotated_videos(
    features: FeatureSet, annotations: Annotations
) -> tuple[list[LocalizationVideo], list[str]]:
    """The videos that have both features and actions, sorted by key.

    Returns:
        The videos, and the names of those that have actions but no features.

    Raises:
        LocalizationError: If no video has both.
        AnnotationError: If an action ends before it starts.
    """
    require_forward(annotations)
    found = []
    met = set()
    for key, name in sorted(annotations.pair(list(features)).items()):
        met.add(name)
        video = describe(features[key], annotations[name])
        if video.segments:
            found.append(video)
    if not found:
        raise LocalizationError(
            f"None of the {len(features)} videos with features has an annotated action: the store "
            f"holds {next(iter(features))!r}, the annotations {next(iter(annotations), 'none')!r}.",
            remedy="Check that names agree; only a 'v_' in front makes no difference.",
        )
    missing = [n for n, video in annotations.items() if video.segments and n not in met]
    return found, missing


def require_same_encoder(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise unless features come from the encoder that a network was trained with.

    Features that do not tell where they come from are taken on trust.

    Raises:
        StoreMismatchError: Naming what differs.
    """
    if not trained or not given:
        return
    different = [name for name in _DECISIVE if trained.get(name) != given.get(name)]
    if different:
        told = "; ".join(f"{n}: {given.get(n)}, not {trained.get(n)}" for n in different)
        raise StoreMismatchError(
            f"The features were made by another encoder than the network was trained with: {told}.",
            remedy="Extract the videos with the same weights, or train on these features.",
        )
