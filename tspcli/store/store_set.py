"""Several stores as one, and the two questions that every command asks of stores.

:class:`StoreSet` opens stores together and refuses those that do not fit. Then: which video is
called so (:func:`find_key`), and when are its rows, if the file does not state it and the user does
(:func:`given_sampling`, :func:`require_agreement`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tspcli.core.video_names import VIDEO_SUFFIXES, find_name, pair_names
from tspcli.errors import ExportError, StoreError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.sampling.spec import as_rate
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import FeatureStore, open_store
from tspcli.store.video_features import VideoFeatures


@dataclass(frozen=True)
class SourceVideo:
    """A video of a store, without its rows.

    Attributes:
        key: Its key.
        n_rows: Its rows.
        sampling: How it was cut into clips.
        duration_s: Seconds of the video, or None if unknown.
        source_fps: Mean frame rate of the original video, or None.
        source_frames: Frames of the original video, or None.
    """

    key: str
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


class StoreSet(Mapping[str, VideoFeatures]):
    """Several stores opened together, as one mapping from a video's key to its features.

    A context manager; rows are read when they are asked for.

    Attributes:
        paths: The files.
        stores: The open stores, in the same order.
        metadata: Provenance of the first store that states it, or None.
        dim: Width of a row; 0 without videos.
    """

    def __init__(self, paths: Sequence[Path], *, sampling: Sampling | None = None) -> None:
        """Open the stores.

        Args:
            paths: The files.
            sampling: The times of rows in files that do not state them.

        Raises:
            StoreError: If one cannot be read, or two hold one video.
            StoreMismatchError: If settings or widths differ.
            UsageError: If a store states another sampling than the given one.
        """
        self._opened = ExitStack()
        self._holders: dict[str, FeatureStore] = {}
        self.paths = list(paths)
        self.stores: list[FeatureStore] = []
        self.metadata: StoreMetadata | None = None
        self.dim = 0
        try:
            for path in paths:
                store = self._opened.enter_context(open_store(path, sampling=sampling))
                self._add(store)
                require_agreement(store, sampling)
        except BaseException:
            self._opened.close()
            raise

    def __getitem__(self, key: str) -> VideoFeatures:
        return self._holders[key][key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)

    def __contains__(self, key: object) -> bool:
        return key in self._holders

    def __enter__(self) -> StoreSet:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._opened.close()

    @property
    def is_described(self) -> bool:
        """Whether every store states the settings that its rows were made with."""
        return all(store.metadata.settings for store in self.stores)

    @cached_property
    def videos(self) -> list[SourceVideo]:
        """All videos by key, for programs that need times and at least one row of each.

        Raises:
            ExportError: If there is none, or one has no rows or no known times.
        """
        if not self:
            raise ExportError(f"{', '.join(map(str, self.paths))} holds no video.")
        return [self._describe(key) for key in sorted(self)]

    @property
    def sampling(self) -> Sampling | None:
        """The sampling of all :attr:`videos`, or None if they differ."""
        samplings = {video.sampling for video in self.videos}
        return samplings.pop() if len(samplings) == 1 else None

    def _add(self, store: FeatureStore) -> None:
        if store.metadata.settings:
            if self.metadata is None:
                self.metadata = store.metadata
            first = next((s.path for s in self.stores if s.metadata.settings), store.path)
            store.metadata.require_same(
                self.metadata,
                str(first),
                str(store.path),
                remedy="Give stores of one encoder and one sampling.",
            )
        self.stores.append(store)
        for key in store:
            if key in self._holders:
                raise StoreError(
                    f"{key!r} is in {self._holders[key].path} and in {store.path}.",
                    remedy="Give each video once.",
                    path=store.path,
                    video=key,
                )
            self._holders[key] = store
            dim = store[key].dim
            if self.dim and dim != self.dim:
                raise StoreMismatchError(
                    f"The features of {key!r} in {store.path} have width {dim}, those before it "
                    f"{self.dim}.",
                    remedy="Give stores of one encoder.",
                    path=store.path,
                    video=key,
                )
            self.dim = dim

    def _describe(self, key: str) -> SourceVideo:
        features, path = self[key], self._holders[key].path
        if features.n_rows == 0:
            raise ExportError(
                f"{path}: {key!r} has no rows.",
                remedy="Leave it out of the store; no reader takes an empty video.",
                path=path,
                video=key,
            )
        if features.sampling is None:
            raise ExportError(
                f"{path} does not state the times of its rows.",
                remedy=f"Add --frame-rate, --stride and --clip-length. {RELEASED}",
                path=path,
                video=key,
            )
        known = features.attributes
        return SourceVideo(
            *(key, features.n_rows, features.sampling),
            *(known.duration_s, known.source_fps, known.source_frames),
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
    # A suffix that is not a video's may belong to the name, so it is only suggested.
    near = [Path(name).stem] if Path(name).stem in store else []
    near += difflib.get_close_matches(names[-1], set(store) - set(near), n=_SHOWN, cutoff=0.5)
    shown = near or list(store)[:_SHOWN]
    raise UsageError(
        f"{path} has no video {name!r}.",
        remedy=f"It has {', '.join(map(repr, shown))}{' …' if len(store) > len(shown) else ''}.",
    )


def matching_keys(first: FeatureStore, second: FeatureStore) -> dict[str, str]:
    """The second store's keys by the first's, of the videos that both have.

    With and without ``v_`` is the same name.

    Raises:
        AnnotationError: If a name may mean either of two videos.
    """
    return pair_names(list(first), set(second))


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
    """Refuse a sampling that is not the one that a store states itself.

    Raises:
        UsageError: If they differ.
    """
    own = None if given is None else store.own_sampling
    if own is not None and given is not None and _rhythm(own) != _rhythm(given):
        raise UsageError(
            f"{store.path} says frame rate {own.frame_rate}, stride {own.stride}, clip length "
            f"{own.clip_length}; the command says {given.frame_rate}, {given.stride}, "
            f"{given.clip_length}.",
            remedy="Drop --frame-rate, --stride and --clip-length: the store states them.",
        )


def require_agreement_or_use(stores: Sequence[FeatureStore], given: Sampling | None) -> None:
    """:func:`require_agreement` for stores of which each may have a sampling of its own.

    Where one does not state its own, the given one is for that store and not for the others.

    Raises:
        UsageError: If every store states its own and one differs.
    """
    if given is not None and all(store.own_sampling is not None for store in stores):
        for store in stores:
            require_agreement(store, given)


def _rhythm(sampling: Sampling) -> tuple[object, ...]:
    # Datasets hold their rate only as a floating-point number.
    return float(sampling.frame_rate), sampling.stride, sampling.clip_length
