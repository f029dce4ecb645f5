"""The containers that readers open: npy files, HDF5 files, CSV files.

What the targets of one HDF5 file share: where it lies and what its attributes say.

Caption files on their way to a reader: which name each gets, and that no two get one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tspcli.annotations import Annotations, Segment
from tspcli.core.files import require_room
from tspcli.core.version import __version__
from tspcli.errors import AnnotationError
from tspcli.exports.target import Array, ExportPlan, PlannedVideo, Writer
from tspcli.store.schema import sampling_attributes

# ruff: noqa: D102 (the methods are described in target.py)


Streams = Callable[[Array], list[tuple[str, Array]]]


class NpyWriter(Writer):
    """One or more ``.npy`` files a video, from functions of its name and rows."""

    def __init__(self, folder: Path, streams: Streams, stem: Callable[[str], str] = str) -> None:
        self.folder = folder
        self._streams = streams
        self._stem = stem

    def write(self, video: PlannedVideo, rows: Array) -> None:
        for suffix, array in self._streams(rows):
            np.save(self.folder / f"{self._stem(video.name)}{suffix}.npy", array)


class CsvWriter(Writer):
    """One comma-separated file a video: a header ``f0,f1,…``, then rows; no index column.

    Nine significant digits give every float32 back exactly.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self._header = ",".join(f"f{i}" for i in range(width)) + "\n"
        self._line = ",".join(["%.9g"] * width) + "\n"

    def write(self, video: PlannedVideo, rows: Array) -> None:
        with open(self.folder / f"{video.name}.csv", "w", encoding="ascii") as file:
            file.write(self._header)
            for row in rows.tolist():
                file.write(self._line % tuple(row))


class Hdf5Writer(Writer):
    """One HDF5 file with a dataset a video at the root; all else in attributes."""

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        describe: Callable[[PlannedVideo], Mapping[str, Any]],
        *,
        compressed: bool = False,
    ) -> None:
        self._path = path
        self._n_videos = 0
        require_room(path, 0, 0)
        self._file = h5py.File(path, "w")
        self._file.attrs.update(attributes)
        self._describe = describe
        self._compressed = compressed

    def write(self, video: PlannedVideo, rows: Array) -> None:
        options: dict[str, Any] = {}
        if self._compressed and rows.size:
            # As in the released files.
            options = {"chunks": True, "compression": "gzip", "compression_opts": 9}
        self._n_videos += 1
        require_room(self._path, rows.nbytes, self._n_videos)
        dataset = self._file.create_dataset(video.name, data=rows, **options)
        for name, value in self._describe(video).items():
            dataset.attrs[name] = value

    def close(self) -> None:
        self._file.close()


def one_stream(suffix: str = "") -> Streams:
    """A single array a video."""
    return lambda rows: [(suffix, rows)]


SUFFIXES = (".h5", ".hdf5")


def names_file(out: Path) -> bool:
    """Whether an output path names an HDF5 file rather than a folder."""
    return out.suffix in SUFFIXES


def open_hdf5(plan: ExportPlan, target: str, path: Path, *, compressed: bool = False) -> Hdf5Writer:
    """An HDF5 writer whose attributes tell where the rows come from and when they are."""
    attributes: dict[str, Any] = {}
    if plan.metadata is not None and not plan.resampled and plan.width == plan.dim:
        attributes.update(plan.metadata.to_attributes())
    elif plan.metadata is not None:
        # Said under another name: these rows are no longer at the seconds that a store promises.
        stored = plan.metadata.to_attributes()
        attributes.update({f"source_{name}": value for name, value in stored.items()})
    attributes["export_target"] = target
    attributes["export_tool_version"] = __version__

    def describe(video: PlannedVideo) -> Mapping[str, Any]:
        return video_attributes(video, plan)

    return Hdf5Writer(path, attributes, describe, compressed=compressed)


def video_attributes(video: PlannedVideo, plan: ExportPlan) -> dict[str, Any]:
    """The attributes of one exported dataset."""
    source = video.source
    known: dict[str, Any] = {
        "duration_s": source.duration_s,
        "source_fps": source.source_fps,
        "source_frames": source.source_frames,
        "source_key": source.key,
    }
    if not plan.resampled:
        known.update(sampling_attributes(source.sampling))
        known.update(plan.extra_attributes(video))
    else:
        known["resize"] = plan.options.resize or "cell-means"
        if plan.options.length is not None:
            known["rows_span_s"] = video.span_s
        known["rows_per_second"] = video.rate
    return {name: value for name, value in known.items() if value is not None}


Captions = list[tuple[str, tuple[Segment, ...], float]]
"""(Name in the reader's annotations, captions, duration in seconds) of each video."""

NO_CAPTIONS = "No captions of the exported videos were given, so none are written."


def captions_by_name(
    plan: ExportPlan, name_of: Callable[[Annotations], str]
) -> dict[str, Captions]:
    """The captions of exported videos by the name of the file to write, without its ending.

    Args:
        plan: The export.
        name_of: The name under which a given file is written again.

    Raises:
        AnnotationError: If two given files would become one.
    """
    if plan.annotations is None:
        return {}
    exported = {video.annotated_as: video for video in plan.videos}
    found: dict[str, Captions] = {}
    given: dict[str, Annotations] = {}
    for file in plan.annotations.of_kind("captions"):
        chosen = [
            (exported[name].annotation_name, video.segments, video.duration_s or 0.0)
            for name, video in plan.annotations.named(file).items()
            if name in exported
        ]
        if not chosen:
            continue
        name = name_of(file)
        if name in given:
            raise AnnotationError(
                f"{given[name].path} and {file.path} would both be written as {name}.",
                remedy="Join them into one file, or give each in an export of its own.",
            )
        given[name] = file
        found[name] = chosen
    return found
