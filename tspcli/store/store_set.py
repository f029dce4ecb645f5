"""Several stores as one, and the two questions that every command asks of stores.

:class:`StoreSet` opens stores together and refuses those that do not fit; stores of further
encoders add their channels to each row (:class:`JoinedFeatures`). Then: which video is called so
(:func:`find_key`), and when are its rows, if the file does not state it and the user does
(:func:`given_sampling`, :func:`require_agreement`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from tspcli.core.text import counted
from tspcli.core.video_names import VIDEO_SUFFIXES, find_name, pair_names
from tspcli.errors import ExportError, StoreError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.sampling.spec import as_rate
from tspcli.sampling.windows import Seconds
from tspcli.store.foreign import TRANSPOSED, look_transposed
from tspcli.store.joined import JoinedFeatures, joined_metadata
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import FeatureStore, open_store
from tspcli.store.video_features import VideoFeatures

_SHOWN = 3


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
        own_times_s: Start and end of each row where rows do not follow at the stride, else None.
    """

    key: str
    n_rows: int
    sampling: Sampling
    duration_s: float | None
    source_fps: float | None
    source_frames: int | None
    own_times_s: tuple[Seconds, Seconds] | None = field(default=None, compare=False)

    @property
    def centers_s(self) -> Seconds:
        """Centre of each row in seconds, shape (n_rows,)."""
        if self.own_times_s is not None:
            return (self.own_times_s[0] + self.own_times_s[1]) / 2
        return self.first_s + self.step_s * np.arange(self.n_rows, dtype=np.float64)

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
        if self.own_times_s is not None:
            return float(self.own_times_s[1][-1])
        return float(self.sampling.clip_end_s(self.n_rows - 1))

    @property
    def uneven_s(self) -> float:
        """The most by which a row departs from the stride, in seconds.

        The last does not count: sampling may have moved it back to end with the video.
        """
        even_s = self.first_s + self.step_s * np.arange(self.n_rows)
        return float(np.abs(self.centers_s - even_s)[:-1].max(initial=0.0))

    def follows_at(self, step_s: float, *, first_s: float) -> bool:
        """Whether each row lies within half a step of ``first_s + i * step_s``.

        Such rows have a reader's rhythm already, and must not be mixed to shift them by less than
        one of them.
        """
        drift_s = abs(self.step_s - step_s) * self.n_rows
        off_s = abs(self.first_s - first_s) + self.uneven_s
        return drift_s < 0.1 * step_s and off_s < 0.501 * step_s


class _Further(NamedTuple):
    """A further encoder's store."""

    stores: StoreSet
    names: Mapping[str, str]
    """Its name of each video, by the set's."""


class StoreSet(Mapping[str, VideoFeatures]):
    """Several stores opened together, as one mapping from a video's key to its features.

    A context manager; rows are read when they are asked for.

    Attributes:
        paths: The files.
        stores: The open stores, in the same order, and then those of further encoders.
        metadata: Provenance of the first store that states it, joined with that of further
            encoders; of an unknown program if none states it.
        dim: Width of a row; 0 without videos.
        n_rows: Rows of all videos of ``paths``.
        notes: What joining left out, in words.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        sampling: Sampling | None = None,
        concat: Sequence[Path] = (),
    ) -> None:
        """Open the stores.

        Args:
            paths: The files.
            sampling: The times of rows in files that do not state them.
            concat: Files of further encoders, each with all videos of ``paths``. Their channels are
                appended to each row, in this order.

        Raises:
            StoreError: If one cannot be read, or two of ``paths`` hold one video.
            StoreMismatchError: If settings or widths differ; or if a file of ``concat`` lacks a
                video, or has its rows at other times.
            UsageError: If every store states its sampling and one differs from the given one.
        """
        self._opened = ExitStack()
        self._holders: dict[str, FeatureStore] = {}
        self._joined: list[_Further] = []
        self.paths = [*paths, *concat]
        self.stores: list[FeatureStore] = []
        self.metadata = StoreMetadata({}, {}, None)
        self.dim = 0
        self.n_rows = 0
        self.notes: list[str] = []
        try:
            for path in paths:
                self._add(self._opened.enter_context(open_store(path, sampling=sampling)))
            for path in concat:
                self._join(self._opened.enter_context(StoreSet([path], sampling=sampling)))
            require_agreement_or_use(self.stores, sampling)
        except BaseException:
            self._opened.close()
            raise

    def __getitem__(self, key: str) -> VideoFeatures:
        own = self._holders[key][key]
        if not self._joined:
            return own
        others = [further.stores[further.names[key]] for further in self._joined]
        return JoinedFeatures([own, *others])

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
            if not self.metadata.settings:
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
            video = store[key]
            self.n_rows += video.n_rows
            dim = video.dim
            if self.dim and dim != self.dim:
                raise StoreMismatchError(
                    f"The features of {key!r} in {store.path} have width {dim}, those before it "
                    f"{self.dim}.",
                    remedy=TRANSPOSED
                    if look_transposed((known.n_rows, known.dim) for known in self.values())
                    else "Give stores of one encoder.",
                    path=store.path,
                    video=key,
                )
            self.dim = dim

    def _join(self, stores: StoreSet) -> None:
        """Append the channels of a further encoder to the rows of all videos."""
        [path], own = stores.paths, self.paths[0]
        names = pair_names(list(self), set(stores))
        if missing := sorted(set(self) - set(names)):
            raise StoreMismatchError(
                f"{path} lacks {counted(len(missing), 'video')} of {own}: {_some(missing)}.",
                remedy="Extract them with that encoder too, or take them out of a copy of the "
                "first store (`tsp store remove`).",
                path=path,
                video=missing[0],
            )
        if extra := sorted(set(stores) - set(names.values())):
            self.notes.append(
                f"{counted(len(extra), 'video')} of {path} not in {own}, left out: {_some(extra)}."
            )
        shorter = [key for key in self if not self._fits(self[key], stores[names[key]], path)]
        if shorter:
            self.notes.append(
                f"{counted(len(shorter), 'video')} with one row more or less in {path} than in "
                f"{own}; that last row is left out: {_some(shorter)}."
            )
        known = bool(self.metadata.settings and stores.metadata.settings)
        self.metadata = (
            joined_metadata(self.metadata, stores.metadata)
            if known
            else StoreMetadata({}, {}, None)
        )
        self._joined.append(_Further(stores, names))
        self.stores += stores.stores
        self.notes.append(
            f"Channels {self.dim} to {self.dim + stores.dim - 1} of every row are those of {path}."
        )
        self.dim += stores.dim

    def _fits(self, video: VideoFeatures, other: VideoFeatures, path: Path) -> bool:
        """Whether two encoders have equally many rows of a video; raise if these cannot be joined.

        Raises:
            StoreMismatchError: If the rows lie at other times, or more than the last one differs.
        """
        rhythms = [
            None if s is None else (s.stride_s, s.clip_duration_s, s.clip_start_s(0))
            for s in (video.sampling, other.sampling)
        ]
        known = "; ".join(
            "unknown" if r is None else f"{float(r[1]):.6g} s every {float(r[0]):.6g} s"
            for r in rhythms
        )
        if rhythms[0] != rhythms[1]:
            raise StoreMismatchError(
                f"The rows of {video.key!r} have different times in {path} and {self.paths[0]} "
                f"(clips of {known}).",
                remedy="Extract both with one --frame-rate, --stride and --clip-length."
                if None not in rhythms
                else f"Give the times of the rows. {RELEASED}",
                path=path,
                video=video.key,
            )
        if abs(video.n_rows - other.n_rows) > 1:
            raise StoreMismatchError(
                f"{video.key!r} has {counted(video.n_rows, 'row')} in {self.paths[0]} and "
                f"{other.n_rows} in {path}.",
                remedy="Extract both from the same video file.",
                path=path,
                video=video.key,
            )
        return video.n_rows == other.n_rows

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
            None if features.has_series else (features.start_s, features.end_s),
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


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
        path=path,
        value=name,
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
            f"{store.path} says frame rate {own.to_dict()['frame_rate']}, stride {own.stride}, "
            f"clip length {own.clip_length}; the command says {given.frame_rate}, {given.stride}, "
            f"{given.clip_length}.",
            remedy="Drop --frame-rate, --stride and --clip-length: the store states them.",
            path=store.path,
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
