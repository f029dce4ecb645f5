"""One video in every dialect, and three videos of two subsets."""

from __future__ import annotations

import json
from pathlib import Path

from tspcli.annotations import AnnotatedVideo, Annotations, Segment


def write(path: Path, text: object) -> Path:
    """Write text as it is, anything else as JSON."""
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


TWO_SUBSETS = Annotations(
    {
        "one": AnnotatedVideo(
            (Segment(1.0, 2.5, "run"), Segment(3.0, 4.0, "jump")), 10.0, "validation"
        ),
        "two": AnnotatedVideo((), 20.0, "validation"),
        "three": AnnotatedVideo((Segment(0.0, 5.0, "run"),), 30.0, "training"),
    }
)
SEGMENT = {"segment": [1.0, 2.5], "label": "Archery"}
EXAMPLES: dict[str, tuple[str, object]] = {
    "anet.json": (
        "activitynet",
        {"database": {"abc": {"subset": "training", "duration": 9.0, "annotations": [SEGMENT]}}},
    ),
    "anet_anno_action.json": (
        "bsn",
        {
            "v_abc": {
                "duration_second": 9.0,
                "duration_frame": 270,
                "feature_frame": 256,
                "annotations": [SEGMENT],
            }
        },
    ),
    "train_groundtruth.csv": (
        "table",
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,"
        "video-frames,temporal-region-label\nabc,1.0,2.5,Archery,9.0,v_abc.mp4,30,270,Action\n"
        "abc,2.5,9.0,,9.0,v_abc.mp4,30,270,No action\n",
    ),
    "gtad.csv": (
        "table",
        "video,type,type_idx,start,end,startFrame,endFrame\nv_abc,Archery,1,1.0,2.5,25,62\n",
    ),
    "Archery_val.txt": ("thumos14", "v_abc 1.0 2.5\n"),
    "mine.tsv": (
        "table",
        "note\tfile\tbegin\tend\tclass\nx\tclips/v_abc.mp4\t1.0\t0:02.5\tArchery\n",
    ),
    "train.csv": (
        "captions",
        "video_id\tcaption\tstart\tend\tduration\tphase\tidx\n"
        "v_abc\tArchery\t1.0\t2.5\t9.0\ttrain\t0\n",
    ),
    "train.json": (
        "captions",
        {"v_abc": {"duration": 9.0, "timestamps": [[1, 2.5]], "sentences": ["Archery"]}},
    ),
    "v_abc.eaf": (
        "elan",
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT><TIME_ORDER>'
        '<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="1000"/>'
        '<TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="2500"/></TIME_ORDER><TIER TIER_ID="t">'
        '<ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">'
        "<ANNOTATION_VALUE>Archery</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>"
        "</ANNOTATION_DOCUMENT>",
    ),
    "project.json": (
        "via",
        {
            "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1"]},
            "config": {},
            "attribute": {
                "1": {
                    "aname": "A",
                    "anchor_id": "FILE1_Z2_XY0",
                    "type": 4,
                    "options": {"0": "Archery"},
                }
            },
            "file": {"1": {"fid": "1", "fname": "v_abc.mp4", "type": 4, "loc": 1, "src": ""}},
            "metadata": {
                "1_x": {"vid": "1", "flg": 0, "z": [1.0, 2.5], "xy": [], "av": {"1": "0"}}
            },
            "view": {"1": {"fid_list": ["1"]}},
        },
    ),
    "v_abc.srt": ("subrip", "1\n00:00:01,000 --> 00:00:02,500\nArchery\n"),
    "v_abc.vtt": ("webvtt", "WEBVTT\n\n00:01.000 --> 00:02.500\nArchery\n"),
}
"""File name to its dialect and its content; each says the same about one video."""


def write_example(folder: Path, name: str) -> Path:
    """The video in one dialect; THUMOS14's as the folder of its files."""
    if name.endswith(".txt"):
        (folder / "annotation").mkdir()
        write(folder / "annotation" / name, EXAMPLES[name][1])
        return folder / "annotation"
    return write(folder / name, EXAMPLES[name][1])
