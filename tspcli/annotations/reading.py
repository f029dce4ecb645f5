"""Reading annotations of any dialect, which is told from the content, not from the name."""

from __future__ import annotations

from pathlib import Path

from tspcli.annotations.activitynet import parse_json_annotations
from tspcli.annotations.files import looks_like_json, read_text
from tspcli.annotations.model import Annotations
from tspcli.annotations.subsets import Role
from tspcli.annotations.tables import parse_table
from tspcli.annotations.thumos14 import is_class_file, read_class_files, with_subsets
from tspcli.errors import AnnotationError
from tspcli.parsing import refuses_damage

DIALECTS = (
    "ActivityNet JSON, anet_anno_action.json, video_info_new.csv, the tables of official TSP, "
    "G-TAD's val_Annotation.csv, THUMOS14's folder of class files, any table of video, start, end "
    "and label, or captions as BMT or PDVC have them"
)


@refuses_damage(AnnotationError, "Give the annotation file as its authors publish it.")
def read_annotations(path: str | Path) -> Annotations:
    """Read annotations of any known dialect, as they are: nothing is left out.

    Args:
        path: A JSON file (ActivityNet's ``database``; BSN's and its successors'; captions), a table
            (official ground truth or metadata, G-TAD's THUMOS14 table, BSN's ``video_info``, BMT's
            captions, any other with columns of video, start, end and label), or THUMOS14's folder
            of per-class text files.

    Raises:
        AnnotationError: If it is missing, in no dialect that is known, or not what its dialect
            promises, with the place and the value.
    """
    path = Path(path)
    found = _read(path)
    for name, video in found.items():
        told = {"seconds": video.duration_s, "frames": video.n_frames, "frames a second": video.fps}
        for unit, value in told.items():
            if value is not None and value < 0:
                raise AnnotationError(
                    f"{path}: {name!r} has {value:g} {unit}.", remedy="Correct it in that file."
                )
    return found


def _read(path: Path) -> Annotations:
    if path.is_dir() or is_class_file(path):
        return with_subsets(read_class_files(path))
    text = read_text(path, "annotation file")
    if looks_like_json(text):
        return parse_json_annotations(text, path)
    found = parse_table(text, path)
    if found is None:
        raise AnnotationError(
            f"{path} is in no dialect of annotations that is known here.",
            remedy=f"Give {DIALECTS}.",
        )
    return found


def read_actions(
    path: str | Path, subset: str | None = None, *, role: Role | None = None
) -> Annotations:
    """Read the actions of any dialect that tells them, without ambiguous stretches.

    Args:
        path: As for :func:`read_annotations`.
        subset: Keep these videos alone, by the source's own word for them; a source that tells no
            subsets is one.
        role: Where no subset is named: keep the videos that play this part.

    Raises:
        AnnotationError: As :func:`read_annotations`; also if it holds no actions, or no video
            belongs to the subset.
    """
    found = read_annotations(path)
    if found.kind != "actions":
        raise AnnotationError(f"{path} holds {found.kind}, no actions.", remedy="Give actions.")
    chosen = found.role(role) if subset is None and role is not None else found.subset(subset)
    return chosen.classed()
