"""What a file of global features holds: a summary, and the neighbours of one video."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tspcli.features.gvf import GlobalFeatures
from tspcli.features.inspect import flatten
from tspcli.features.lookup import find_key, unit_rows


@dataclass(frozen=True)
class GlobalVideo:
    """One video's vector.

    Attributes:
        key: The video's key.
        norm: Euclidean length of the vector.
        n_rows: How many clips it was pooled from, if the file tells.
        neighbours: (key, cosine) of the most similar videos.
    """

    key: str
    norm: float
    n_rows: int | None
    neighbours: list[tuple[str, float]]


@dataclass(frozen=True)
class GlobalSummary:
    """A file of global features at a glance.

    Attributes:
        path: The file.
        pool: How clips became one vector: ``max``, ``mean``, or None where the file does not tell.
        dim: Width of a vector.
        encoder: The backbone, if known.
        weights: The weights' name, if known.
        tool_version: The version that wrote it; None for a file of another program.
        settings: What the vectors depend on, nested names joined by dots.
        videos: The videos, sorted by key.
    """

    path: str
    pool: str | None
    dim: int
    encoder: str | None
    weights: str | None
    tool_version: str | None
    settings: dict[str, Any]
    videos: list[GlobalVideo]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {"kind": "global features", "n_videos": len(self.videos), **asdict(self)}


def summarize_global(features: GlobalFeatures) -> GlobalSummary:
    """Summarise a file of global features."""
    metadata = features.metadata
    return GlobalSummary(
        str(features.path),
        features.pool,
        features.dim,
        metadata.encoder,
        metadata.weights,
        metadata.tool_version,
        flatten(metadata.settings),
        [_video(features, key, []) for key in sorted(features)],
    )


def view_global(features: GlobalFeatures, name: str, *, n_neighbours: int = 3) -> GlobalVideo:
    """One video, and the videos whose vectors are nearest by cosine.

    Raises:
        UsageError: If there is no such video.
    """
    key = find_key(features.vectors, name, features.path)
    others = [other for other in features if other != key]
    units = unit_rows(np.stack([features[key], *(features[other] for other in others)]))
    cosines = units[1:] @ units[0]
    nearest = np.argsort(-cosines, kind="stable")[:n_neighbours]
    return _video(features, key, [(others[i], float(cosines[i])) for i in nearest])


def _video(features: GlobalFeatures, key: str, neighbours: list[tuple[str, float]]) -> GlobalVideo:
    n_rows = features.attributes.get(key, {}).get("pooled_rows")
    norm = float(np.linalg.norm(features[key]))
    return GlobalVideo(key, norm, None if n_rows is None else int(n_rows), neighbours)
