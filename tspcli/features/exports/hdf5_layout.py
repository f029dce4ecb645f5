"""What the targets of one HDF5 file share: where it lies and what its attributes say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tspcli import __version__
from tspcli.features.exports.target import ExportPlan, PlannedVideo
from tspcli.features.exports.writers import Hdf5Writer
from tspcli.features.metadata import sampling_attributes

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
