"""The stores of an export, opened as one: who holds which video, and that they fit together.

Finding a video in a store by what a user calls it.

Where rows lie in time, as the user says it of files that do not say it themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from tspcli.core.video_names import VIDEO_SUFFIXES, find_name, pair_names
from tspcli.errors import ExportError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.sampling.resampling import FloatArray
from tspcli.sampling.spec import as_rate
from tspcli.store.store import FeatureStore, VideoFeatures, open_store


@dataclass(frozen=True)
class SourceVideo:
    """A video of one of the stores.

    Attributes:
        key: Its key there.
        store: Which store, by position.
        n_rows: Its rows.
        sampling: How it was cut into clips.
        duration_s: Seconds of the video, or None if the store does not tell.
        source_fps: Mean frame rate of the original video, or None.
        source_frames: Frames of the original video, or None.
    """

    key: str
    store: int
    n_rows: int
    sampling: Sampling
    duration_s: float | None
    source_fps: float | None
    source_frames: int | None

    @property
    def first_s(self) -> float:
        """Centre of the first clip in seconds."""
        return float(self.sampling.clip_center_s(0))

    @property
    def step_s(self) -> float:
        """Seconds from one clip's centre to the next."""
        return float(self.sampling.stride_s)

    @property
    def covered_s(self) -> float:
        """End of the last clip in seconds."""
        return float(self.sampling.clip_end_s(self.n_rows - 1))


class Sources:
    """Several stores opened together. A context manager; rows are read one video at a time."""

    def __init__(self, paths: Sequence[Path], sampling: Sampling | None) -> None:
        self._stack = ExitStack()
        self.paths = list(paths)
        self.stores: list[FeatureStore] = []
        try:
            for path in paths:
                store = self._stack.enter_context(open_store(path, sampling=sampling))
                self.stores.append(store)
            self._check_settings()
            for store in self.stores:
                require_agreement(store, sampling)
            self.videos, self.dim = self._index()
        except BaseException:
            self._stack.close()
            raise

    def features(self, video: SourceVideo) -> VideoFeatures:
        """The rows of a video, still unread."""
        return self.stores[video.store][video.key]

    @property
    def sampling(self) -> Sampling | None:
        """The sampling of all videos, or None if they differ."""
        samplings = {video.sampling for video in self.videos}
        return samplings.pop() if len(samplings) == 1 else None

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _check_settings(self) -> None:
        known = [
            (p, s) for p, s in zip(self.paths, self.stores, strict=True) if s.metadata.settings
        ]
        for path, store in known[1:]:
            differences = store.metadata.differences(known[0][1].metadata)
            if differences:
                raise StoreMismatchError(
                    f"{path} was made with other settings than {known[0][0]}: "
                    + "; ".join(differences)
                    + ".",
                    remedy="Export stores of one encoder and one sampling at a time.",
                )

    def _index(self) -> tuple[list[SourceVideo], int]:
        videos: list[SourceVideo] = []
        seen: dict[str, int] = {}
        dims: dict[int, str] = {}
        for number, store in enumerate(self.stores):
            for key in store:
                if key in seen:
                    raise ExportError(
                        f"{key!r} is in {self.paths[seen[key]]} and in {self.paths[number]}.",
                        remedy="Give each video once.",
                    )
                seen[key] = number
                features = store[key]
                dims.setdefault(features.dim, f"{key!r} in {self.paths[number]}")
                videos.append(self._describe(features, number))
        if not videos:
            raise ExportError(
                f"{', '.join(map(str, self.paths))} holds no video.", remedy="Check the path."
            )
        if len(dims) > 1:
            shown = ", ".join(f"{dim} ({where})" for dim, where in dims.items())
            raise StoreMismatchError(
                f"The features differ in width: {shown}.",
                remedy="Export stores of one encoder at a time.",
            )
        return sorted(videos, key=lambda video: video.key), next(iter(dims))

    def _describe(self, features: VideoFeatures, number: int) -> SourceVideo:
        if features.n_rows == 0:
            raise ExportError(
                f"{self.paths[number]}: {features.key!r} has no rows.",
                remedy="Leave it out of the store; no reader takes an empty video.",
            )
        sampling = features.sampling
        if sampling is None:
            raise ExportError(
                f"{self.paths[number]} does not say at which seconds its rows lie.",
                remedy=f"Add --frame-rate, --stride and --clip-length. {RELEASED}",
            )
        frames = features.attrs.get("source_frames")
        return SourceVideo(
            features.key,
            number,
            features.n_rows,
            sampling,
            features.duration_s,
            features.source_fps,
            None if frames is None else int(frames),
        )


_SHOWN = 3


def find_video(store: FeatureStore, name: str) -> VideoFeatures:
    """The video called ``name``; see :func:`find_key`.

    Raises:
        UsageError: If there is none, with the nearest names.
    """
    return store[find_key(store, name, store.path)]


def find_key(store: Mapping[str, Any], name: str, path: Path) -> str:
    """The key of the video called ``name``.

    It may be called with or without the ``v_`` that the store's keys may carry, by the name or path
    of its file, and with the characters that keys write as ``%0A`` and the like.

    Raises:
        UsageError: If there is none, with the nearest names.
    """
    spelled = {unquote(key, errors="surrogateescape"): key for key in store if "%" in key}
    names = [name, Path(name).name]
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        names.append(Path(name).stem)
    for other in names:
        if (key := find_name(other, {*store, *spelled})) is not None:
            return key if key in store else spelled[key]
    # An ending that is none of a video may belong to the name, so it is only suggested.
    near = [Path(name).stem] if Path(name).stem in store else []
    near += difflib.get_close_matches(names[-1], set(store) - set(near), n=_SHOWN, cutoff=0.5)
    shown = near or list(store)[:_SHOWN]
    raise UsageError(
        f"{path} has no video {name!r}.",
        remedy=f"It has {', '.join(map(repr, shown))}{' …' if len(store) > len(shown) else ''}.",
    )


def matching_keys(first: FeatureStore, second: FeatureStore) -> dict[str, str]:
    """The second store's keys by the first's, of the videos that both have.

    Stores with and without ``v_`` meet.

    Raises:
        AnnotationError: If it cannot be told which of two videos is meant.
    """
    return pair_names(list(first), set(second))


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a row of zeros stays zeros, one that is not finite becomes NaN."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    finite = np.isfinite(norms)
    divisors = np.where(finite & (norms > 0), norms, 1)
    scaled: FloatArray = np.where(finite, rows, np.nan) / divisors
    return scaled.astype(rows.dtype)


RELEASED = (
    "The features released with TSP have --frame-rate 15 --clip-length 16, and --stride 16 "
    "(ActivityNet) or --stride 1 (THUMOS14)."
)


def given_sampling(
    frame_rate: str | None, stride: int | None, clip_length: int | None
) -> Sampling | None:
    """The sampling that the user states for files that do not store theirs.

    Args:
        frame_rate: Samples per second inside a clip; TSP's 15 if only others are given.
        stride: Samples between the starts of clips; likewise 16.
        clip_length: Samples per clip; likewise 16.

    Returns:
        The sampling; None if nothing is given.
    """
    if frame_rate is None and stride is None and clip_length is None:
        return None
    rate = as_rate(15 if frame_rate is None else frame_rate, "frame rate")
    return Sampling(rate, clip_length or 16, stride or 16, grid_rate=max(rate, as_rate(30)))


def require_agreement(store: FeatureStore, given: Sampling | None) -> None:
    """Refuse a sampling that is not the one that a store tells itself.

    Raises:
        UsageError: With both.
    """
    own = None if given is None else store.own_sampling
    if own is not None and given is not None and _rhythm(own) != _rhythm(given):
        raise UsageError(
            f"{store.path} says frame rate {own.frame_rate}, stride {own.stride}, clip length "
            f"{own.clip_length}; the command says {given.frame_rate}, {given.stride}, "
            f"{given.clip_length}.",
            remedy="Leave --frame-rate, --stride and --clip-length away: the store knows.",
        )


def require_agreement_or_use(stores: Sequence[FeatureStore], given: Sampling | None) -> None:
    """:func:`require_agreement` for stores of which each may have a sampling of its own.

    Where one of them does not tell its own, the given one is that store's, and says nothing of the
    others.

    Raises:
        UsageError: With both, if every store tells its own and one is not the given one.
    """
    if given is not None and all(store.own_sampling is not None for store in stores):
        for store in stores:
            require_agreement(store, given)


def _rhythm(sampling: Sampling) -> tuple[object, ...]:
    # Datasets alone hold their rate as a floating-point number.
    return float(sampling.frame_rate), sampling.stride, sampling.clip_length
