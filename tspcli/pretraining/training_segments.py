"""From ground-truth rows to the segments that clips are drawn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tspcli.annotations.training_tables import GroundTruthRow
from tspcli.core.regions import REGION_CLASSES
from tspcli.core.text import counted
from tspcli.errors import TrainingError

NO_LABEL = -1
"""The action label of a background clip; the loss ignores it."""


@dataclass(frozen=True)
class TrainingSegments:
    """The usable segments of one split, in the order of their table.

    Attributes:
        filenames: Of the videos, distinct, in order of appearance.
        video: Index into ``filenames`` of each segment, shape (n,).
        start_s, end_s: Clamped to the video, float64, shape (n,).
        duration_s: Of each segment's video, float64, shape (n,).
        action: Class id, or -1 for background, int64, shape (n,).
        region: Id of the region class, int64, shape (n,).
        n_rows: Rows of the table.
        n_short: Rows dropped because less than a clip of them lies in the video.
        n_background: Rows left out because foreground alone was asked for.
    """

    filenames: tuple[str, ...]
    video: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    duration_s: npt.NDArray[np.float64]
    action: npt.NDArray[np.int64]
    region: npt.NDArray[np.int64]
    n_rows: int
    n_short: int
    n_background: int

    def __len__(self) -> int:
        return len(self.video)

    def without(self, names: Collection[str]) -> TrainingSegments:
        """The segments of the videos that are not among ``names``."""
        kept = [place for place, name in enumerate(self.filenames) if name not in names]
        chosen = np.isin(self.video, kept)
        return replace(
            self,
            filenames=tuple(self.filenames[place] for place in kept),
            video=np.searchsorted(kept, self.video[chosen]),
            start_s=self.start_s[chosen],
            end_s=self.end_s[chosen],
            duration_s=self.duration_s[chosen],
            action=self.action[chosen],
            region=self.region[chosen],
        )

    def digest(self) -> str:
        """sha256 over everything that decides on the clips."""
        digest = hashlib.sha256(json.dumps(self.filenames).encode())
        for column in (self.video, self.start_s, self.end_s, self.duration_s, self.action):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def build_segments(
    rows: Sequence[GroundTruthRow],
    labels: Sequence[str],
    *,
    clip_length: int,
    frame_rate: float,
    foreground_only: bool = False,
    name: str = "the table",
) -> TrainingSegments:
    """Clamp segments to their videos and drop those that are shorter than a clip.

    Args:
        rows: Of a ground-truth table.
        labels: Class names, index = class id.
        clip_length: Frames per clip.
        frame_rate: Frames per second inside a clip.
        foreground_only: Whether background is left out.
        name: What to call the table in an error.

    Raises:
        TrainingError: If a class is unknown or nothing is left.
    """
    ids = {label: index for index, label in enumerate(labels)}
    unknown = sorted({r.label for r in rows if r.label is not None and r.label not in ids})
    if unknown:
        raise TrainingError(
            f"{name} has the class {unknown[0]!r}, which the label mapping lacks.",
            remedy="Give the mapping that belongs to the tables (--labels).",
        )
    kept: list[tuple[GroundTruthRow, float, float]] = []
    n_short = n_background = 0
    for row in rows:
        start_s, end_s = max(row.start_s, 0.0), min(row.end_s, row.duration_s)
        if foreground_only and row.label is None:
            n_background += 1
        elif (end_s - start_s) * frame_rate < clip_length:  # the official comparison
            n_short += 1
        else:
            kept.append((row, start_s, end_s))
    if not kept:
        raise TrainingError(
            f"{name} has no segment to take a clip from: {n_short} of {len(rows)} are shorter than "
            f"{clip_length / frame_rate:.4g} s, {n_background} are background.",
            remedy="Check the tables with `tsp annotations check`.",
        )
    filenames = tuple(dict.fromkeys(row.filename for row, _, _ in kept))
    index = {filename: number for number, filename in enumerate(filenames)}
    return TrainingSegments(
        filenames=filenames,
        video=np.array([index[row.filename] for row, _, _ in kept], dtype=np.int64),
        start_s=np.array([start for _, start, _ in kept], dtype=np.float64),
        end_s=np.array([end for _, _, end in kept], dtype=np.float64),
        duration_s=np.array([row.duration_s for row, _, _ in kept], dtype=np.float64),
        action=np.array(
            [NO_LABEL if row.label is None else ids[row.label] for row, _, _ in kept],
            dtype=np.int64,
        ),
        region=np.array([REGION_CLASSES.index(row.region) for row, _, _ in kept], dtype=np.int64),
        n_rows=len(rows),
        n_short=n_short,
        n_background=n_background,
    )


def find_videos(filenames: Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """Where each video of a table lies.

    Args:
        filenames: As the table has them.
        folders: Searched with their subfolders.

    Raises:
        TrainingError: If one is missing (with how many), or a name occurs twice.
    """
    from tspcli.video import list_videos

    found: dict[str, Path] = {}
    twice: dict[str, Path] = {}
    for folder in folders:
        for file in list_videos([folder], key_template="{parent}|{name}"):
            known = found.setdefault(file.path.name, file.path)
            if known.resolve() != file.path.resolve():
                twice[file.path.name] = file.path
    missing = [name for name in filenames if name not in found]
    if missing:
        where = ", ".join(map(str, folders))
        raise TrainingError(
            f"Not in {where}: {len(missing)} of {counted(len(filenames), 'video')} of the table, "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}.",
            remedy="Give the right --videos, or take their rows out of the table.",
            option="videos",
            missing=missing,
        )
    for name in filenames:
        if name in twice:
            raise TrainingError(
                f"There are two videos {name}: {found[name]} and {twice[name]}.",
                remedy="Give the folder of one of them.",
                value=name,
                paths=[found[name], twice[name]],
            )
    return [found[name] for name in filenames]
