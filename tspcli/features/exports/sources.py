"""The stores of an export, opened as one: who holds which video, and that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tspcli.errors import ExportError, StoreMismatchError
from tspcli.features.row_times import RELEASED, require_agreement
from tspcli.features.store import FeatureStore, VideoFeatures, open_store
from tspcli.timeline import Sampling


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
