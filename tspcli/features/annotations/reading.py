"""Reading annotations; the dialect is told from the content, not from the name.

JSON: ActivityNet's (``database``), that of BSN and its successors (``duration_second``), captions
(``timestamps``). Tables: the official TSP ground truth and metadata, G-TAD's THUMOS14 table, BSN's
``video_info``, BMT's tab-separated captions.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tspcli.errors import AnnotationError
from tspcli.features.annotations.model import (
    AnnotatedVideo,
    AnnotationFile,
    AnnotationSet,
    Kind,
    Segment,
    Subset,
)
from tspcli.parsing import MALFORMED, parse_json

_SUBSETS: dict[str, Subset] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}
_THUMOS: dict[str, Subset] = {
    "video_validation_": "training",
    "video_test_": "validation",
}

Rows = list[dict[str, str]]


def read_annotations(paths: Sequence[str | Path], *, subset: str | None = None) -> AnnotationSet:
    """Read annotation files of any known dialect.

    Args:
        paths: The files. What one lacks (subsets, durations) another may tell.
        subset: The subset of all videos for which no file tells one.

    Raises:
        AnnotationError: If a file is missing, or no dialect that is known, or not what its dialect
            promises.
    """
    default = None if subset is None else _subset(subset, "--subset")
    files = [read_annotation_file(Path(path), default) for path in paths]
    return AnnotationSet(files)


def read_annotation_file(path: Path, default: Subset | None = None) -> AnnotationFile:
    """Read one file; see :func:`read_annotations`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AnnotationError(f"{path} does not exist.", remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read ({error}).") from error
    try:
        if text.lstrip()[:1] in ("{", "["):
            file = _read_json(path, text)
        else:
            file = _read_table(path, text)
    except MALFORMED as error:
        raise AnnotationError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            remedy="Give the annotation file as its authors publish it.",
        ) from error
    guess = default or _subset_of_file(path)
    for name, video in file.videos.items():
        if video.subset is None:
            thumos = next((s for p, s in _THUMOS.items() if name.startswith(p)), None)
            known = thumos or guess
            if known is not None:
                file.videos[name] = AnnotatedVideo(**{**vars(video), "subset": known})
    return file


def _read_json(path: Path, text: str) -> AnnotationFile:
    data = parse_json(text)
    if isinstance(data, dict) and isinstance(data.get("database"), dict):
        return _file(path, "activitynet", "actions", map(_activitynet, data["database"].items()))
    first = next(iter(data.values()), None) if isinstance(data, dict) else None
    if isinstance(first, dict) and "duration_second" in first:
        return _file(path, "bsn", "actions", map(_bsn, data.items()))
    if isinstance(first, dict) and "timestamps" in first:
        return _file(path, "captions", "captions", map(_captions, data.items()))
    raise _unknown(path)


def _activitynet(item: tuple[str, Any]) -> AnnotatedVideo:
    name, entry = item
    subset = entry.get("subset")
    known = _thumos_subset(name, subset) or (None if subset is None else _subset(subset, name))
    duration, frames = _number(entry.get("duration")), _number(entry.get("frame"))
    return AnnotatedVideo(
        name,
        tuple(_json_segment(a) for a in entry.get("annotations") or ()),
        known,
        duration,
        None if frames is None else round(frames),
        _number(entry.get("fps")),
    )


def _thumos_subset(name: str, subset: str | None) -> Subset | None:
    """THUMOS14's own names of its parts mean other roles than ActivityNet's."""
    if subset is None:
        return None
    return next((role for prefix, role in _THUMOS.items() if name.startswith(prefix)), None)


def _bsn(item: tuple[str, Any]) -> AnnotatedVideo:
    name, entry = item
    return AnnotatedVideo(
        name,
        tuple(_json_segment(a) for a in entry.get("annotations") or ()),
        duration_s=_number(entry["duration_second"]),
        n_frames=round(entry["duration_frame"]),
        fps=_number(entry.get("fps")),
        feature_frame=_number(entry.get("feature_frame")),
    )


def _captions(item: tuple[str, Any]) -> AnnotatedVideo:
    name, entry = item
    pairs = zip(entry["timestamps"], entry["sentences"], strict=True)
    return AnnotatedVideo(
        name,
        tuple(Segment(_finite(s), _finite(e), str(text)) for (s, e), text in pairs),
        duration_s=_number(entry["duration"]),
    )


def _json_segment(entry: dict[str, Any]) -> Segment:
    start, end = entry["segment"]
    return Segment(_finite(start), _finite(end), str(entry["label"]))


def _read_table(path: Path, text: str) -> AnnotationFile:
    header = text.split("\n", 1)[0]
    delimiter = "\t" if "\t" in header else ","
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    columns = set(next(csv.reader([header.strip("\r")], delimiter=delimiter), []))
    for needed, dialect, kind, read in _TABLES:
        if needed <= columns:
            return _file(path, dialect, kind, read(rows))
    raise _unknown(path)


def _tsp_ground_truth(rows: Rows) -> Iterable[AnnotatedVideo]:
    for name, group in _grouped(rows, "video-name"):
        actions = [r for r in group if r.get("temporal-region-label", "Action") == "Action"]
        yield AnnotatedVideo(
            name,
            tuple(
                Segment(_finite(r["t-start"]), _finite(r["t-end"]), r["action-label"])
                for r in actions
            ),
            duration_s=_number(group[0].get("video-duration")),
        )


def _tsp_metadata(rows: Rows) -> Iterable[AnnotatedVideo]:
    for row in rows:
        # The rate and the frame count are those of the re-encoded video, not of the original.
        name = row["filename"]
        yield AnnotatedVideo(
            Path(name).stem if "." in name else name, duration_s=_number(row["video-duration"])
        )


def _gtad_thumos(rows: Rows) -> Iterable[AnnotatedVideo]:
    for name, group in _grouped(rows, "video"):
        yield AnnotatedVideo(
            name,
            tuple(
                Segment(
                    _finite(r["start"]),
                    _finite(r["end"]),
                    r["type"],
                    (round(float(r["startFrame"])), round(float(r["endFrame"]))),
                )
                for r in group
            ),
        )


def _video_info(rows: Rows) -> Iterable[AnnotatedVideo]:
    for row in rows:
        yield AnnotatedVideo(
            row["video"],
            subset=_subset(row["subset"], row["video"]),
            duration_s=_number(row.get("seconds")),
            n_frames=None if not row.get("numFrame") else round(float(row["numFrame"])),
            fps=_number(row.get("fps")),
            feature_frame=_number(row.get("featureFrame")),
        )


def _bmt(rows: Rows) -> Iterable[AnnotatedVideo]:
    for name, group in _grouped(rows, "video_id"):
        yield AnnotatedVideo(
            name,
            tuple(Segment(_finite(r["start"]), _finite(r["end"]), r["caption"]) for r in group),
            duration_s=_number(group[0]["duration"]),
        )


_TABLES: list[tuple[set[str], str, Kind, Callable[[Rows], Iterable[AnnotatedVideo]]]] = [
    ({"video-name", "t-start", "t-end", "action-label"}, "tsp", "actions", _tsp_ground_truth),
    ({"filename", "video-duration"}, "tsp-metadata", "metadata", _tsp_metadata),
    ({"video", "type", "start", "end", "startFrame", "endFrame"}, "gtad-thumos", "actions",
     _gtad_thumos),
    ({"video", "subset"}, "video-info", "metadata", _video_info),
    ({"video_id", "caption", "start", "end", "duration"}, "bmt", "captions", _bmt),
]  # fmt: skip


def _file(path: Path, dialect: str, kind: Kind, videos: Iterable[AnnotatedVideo]) -> AnnotationFile:
    file = AnnotationFile(path, dialect, kind)
    for video in videos:
        if video.name in file.videos:
            raise AnnotationError(f"{path} has {video.name!r} twice.", remedy="Remove one.")
        file.videos[video.name] = video
    return file


def _grouped(rows: Rows, column: str) -> Iterable[tuple[str, Rows]]:
    groups: dict[str, Rows] = {}
    for row in rows:
        # A line that is too short leaves columns without a value.
        if not row[column]:
            raise ValueError(f"a line without {column}")
        groups.setdefault(row[column], []).append(row)
    return groups.items()


def _number(value: Any) -> float | None:
    return None if value is None or value == "" else _finite(value)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def _subset(value: str, where: str) -> Subset:
    known = _SUBSETS.get(str(value).strip().lower())
    if known is None:
        raise AnnotationError(
            f"{where}: {value!r} is no subset.", remedy="Use training, validation or testing."
        )
    return known


def _subset_of_file(path: Path) -> Subset | None:
    """The subset that a file's name tells, as in ``activitynet_v1-3_train_metadata.csv``."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    found = {_SUBSETS[word] for word in words if word in _SUBSETS}
    return found.pop() if len(found) == 1 else None


def _unknown(path: Path) -> AnnotationError:
    return AnnotationError(
        f"{path} is in no dialect of annotations that is known here.",
        remedy="Give ActivityNet JSON, anet_anno_action.json, video_info_new.csv, the tables of "
        "official TSP, G-TAD's val_Annotation.csv, or captions as BMT or PDVC have them.",
    )
