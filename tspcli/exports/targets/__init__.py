"""Every reader that can be written for, by name; importing this table imports none of them.

To add a reader, write a module with a subclass of :class:`~tspcli.exports.target.Target` and add
its line to :data:`TARGETS`. The command line and the tests read this table.
"""

from __future__ import annotations

from typing import NamedTuple

from tspcli.core.extension_table import Table


class TargetEntry(NamedTuple):
    """A reader of features.

    Attributes:
        name: What the user calls it.
        module: The module of its class.
        type_name: Its class, a subclass of :class:`~tspcli.exports.target.Target`.
        summary: What it is given, in one line.
    """

    name: str
    module: str
    type_name: str
    summary: str


_HERE = "tspcli.exports.targets"

TARGETS: Table[TargetEntry] = Table(
    "tspcli.targets",
    (
        TargetEntry(
            "official",
            f"{_HERE}.official",
            "Official",
            "the HDF5 layout of the released TSP features",
        ),
        TargetEntry(
            "gtad-anet",
            f"{_HERE}.gtad_anet",
            "GtadAnet",
            "G-TAD, branch anet: one HDF5 file, which ActionFormer reads too",
        ),
        TargetEntry(
            "gtad-thumos",
            f"{_HERE}.gtad_thumos",
            "GtadThumos",
            "G-TAD, branch master: flow and rgb files at the original frame rate",
        ),
        TargetEntry(
            "bmn",
            f"{_HERE}.bmn",
            "BmnReader",
            "BMN: csv_mean_100/v_ID.csv, a header and 100 rows each",
        ),
        TargetEntry(
            "mmaction2",
            f"{_HERE}.mmaction2",
            "MMAction2",
            "MMAction2's BMN and BSN: csv/v_ID.csv and one annotation file per split",
        ),
        TargetEntry(
            "bmt",
            f"{_HERE}.bmt",
            "Bmt",
            "BMT: v_ID_rgb.npy and v_ID_flow.npy, captions in its table",
        ),
        TargetEntry(
            "actionformer",
            f"{_HERE}.actionformer",
            "ActionFormer",
            "ActionFormer: v_ID.npy or one .hdf5 file, annotations with label_id, a YAML block",
        ),
        TargetEntry(
            "opentad",
            f"{_HERE}.opentad",
            "OpenTad",
            "OpenTAD: v_ID.npy with missing_files.txt",
        ),
        TargetEntry(
            "pdvc",
            f"{_HERE}.pdvc",
            "Pdvc",
            "PDVC: v_ID.npy, captions in JSON, a configuration",
        ),
        TargetEntry(
            "qvhighlights",
            f"{_HERE}.qvhighlights",
            "QvHighlights",
            "Moment-DETR and its successors: NAME.npz of rows of 2 s, queries in jsonl",
        ),
        TargetEntry(
            "ego4d",
            f"{_HERE}.ego4d",
            "Ego4D",
            "Ego4D's episodic memory: VIDEO_UID.pt, 1.875 rows per second",
        ),
        TargetEntry(
            "segmentation",
            f"{_HERE}.segmentation",
            "Segmentation",
            "action segmentation (MS-TCN and others): one column per frame, labels per frame",
        ),
        TargetEntry(
            "online",
            f"{_HERE}.online",
            "Online",
            "online detection (LSTR, TeSTra): 4 rows per second, targets per row",
        ),
        TargetEntry(
            "vidchapters",
            f"{_HERE}.vidchapters",
            "VidChapters",
            "VidChapters and CM2_DVC: one .pth file, captions in JSON",
        ),
        TargetEntry(
            "npy",
            f"{_HERE}.npy",
            "Npy",
            "one npy file per video, and a table of their seconds",
        ),
        TargetEntry(
            "parquet",
            f"{_HERE}.parquet",
            "ParquetTable",
            "one Parquet table of all rows with their seconds",
        ),
    ),
)
"""Every reader, by name."""
