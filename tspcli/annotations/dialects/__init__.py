"""Every dialect of annotations, by name; importing this table imports none of them.

To add a dialect, write a module with two functions and add its line to :data:`DIALECTS`::

    def detects(source: Source) -> bool: ...
    def read(source: Source) -> Annotations: ...

:class:`~tspcli.annotations.text_files.Source` holds the file, opened once for all dialects.
Reading, conversion, exports, evaluation and the command line read this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tspcli.annotations.data_sets import (
    OWN,
    THUMOS14_ROLES,
    WITHOUT_DIALECT,
    DataSet,
    spaced,
)
from tspcli.annotations.data_sets import (
    Role as Role,
)
from tspcli.core.extension_table import Table

GapRule = Literal["union", "official"]
"""Where background rows lie: see :func:`tspcli.annotations.training_tables.background_segments`."""


@dataclass(frozen=True)
class Dialect(DataSet):
    """One way in which annotations are written, and the conventions of its data set.

    Attributes:
        module: The module that detects and reads it.
        summary: What its files look like, in a few words.
        writer: ``module:function`` that writes it, called with the path and the annotations;
            returns the files. Empty for a dialect that is only read.
        gap_rule: How its gaps between actions become background rows.
        min_gap_s: Shortest gap, in seconds, that becomes one.
        splits: What the training tables of its subsets are called, where not by the subset's name.
    """

    module: str
    summary: str
    writer: str = ""
    gap_rule: GapRule = "union"
    min_gap_s: float = 16 / 15
    splits: Mapping[str, str] = field(default_factory=dict)


_HERE = "tspcli.annotations.dialects"

DIALECTS: Table[Dialect] = Table(
    "tspcli.dialects",
    (
        Dialect(
            "activitynet",
            f"{_HERE}.activitynet",
            'ActivityNet\'s JSON, {"database": {ID: {"annotations": ...}}}',
            writer="tspcli.annotations.write:write_activitynet",
            gap_rule="official",
            min_gap_s=16 / 3,
            splits={"training": "train", "validation": "valid", "testing": "test"},
            title="ActivityNet",
            tious=spaced(0.5, 0.95, 10),
            video_names=r"v_.{11}|(?=.*[A-Z])(?=.*[a-z])[\w-]{11}",
            id_prefix="v_",
        ),
        Dialect(
            "thumos14",
            f"{_HERE}.thumos14",
            "THUMOS14's folder of class files such as BaseballPitch_val.txt",
            title="THUMOS14",
            tious=spaced(0.3, 0.7, 5),
            roles_by_prefix=THUMOS14_ROLES,
        ),
        Dialect(
            "bsn",
            f"{_HERE}.bsn",
            'anet_anno_action.json of BSN and its successors, {"v_ID": {"annotations": ...}}',
            gap_rule="official",
            min_gap_s=16 / 3,
        ),
        Dialect(
            "captions",
            f"{_HERE}.captions",
            'captions in JSON, {"v_ID": {"timestamps": ...}}, or in BMT\'s table',
        ),
        Dialect(
            "elan",
            f"{_HERE}.elan",
            "ELAN's documents (.eaf), one per video",
            writer=f"{_HERE}.elan:write",
        ),
        Dialect("via", f"{_HERE}.via", "projects of VIA 3 in JSON"),
        Dialect(
            "subrip",
            f"{_HERE}.subrip",
            "SubRip's subtitles (.srt), one file per video",
            writer=f"{_HERE}.subrip:write",
        ),
        Dialect(
            "webvtt",
            f"{_HERE}.webvtt",
            "WebVTT's cues (.vtt), one file per video",
            writer=f"{_HERE}.webvtt:write",
        ),
        Dialect(
            "table",
            f"{_HERE}.table",
            "a table of video, start, end and label, such as those of official TSP and G-TAD",
            writer="tspcli.annotations.write:write_actions",
        ),
        Dialect(
            "metadata",
            f"{_HERE}.metadata",
            "a table of videos: official TSP's metadata or BSN's video_info_new.csv",
        ),
    ),
)
"""Every dialect; the first that detects a source reads it."""


class _DataSets(Mapping[str, DataSet]):
    """Dialects that have a protocol, entries added later included, and data sets without one."""

    def __getitem__(self, name: str) -> DataSet:
        for data_set in WITHOUT_DIALECT:
            if data_set.name == name:
                return data_set
        dialect = DIALECTS[name]
        if not dialect.tious:
            raise KeyError(name)
        return dialect

    def __iter__(self) -> Iterator[str]:
        yield from (name for name, dialect in DIALECTS.complete().items() if dialect.tious)
        yield from (data_set.name for data_set in WITHOUT_DIALECT)

    def __len__(self) -> int:
        return sum(1 for _ in self)


DATA_SETS: Mapping[str, DataSet] = _DataSets()
"""The data sets with an evaluation protocol, by name."""


def data_set_of(names: Iterable[str], dialect: str = "") -> DataSet:
    """The data set to which all these videos belong by their names, else one's own.

    Args:
        names: Their names.
        dialect: The dialect of their annotations. That of a data set decides, except ActivityNet's,
            in which most others are written too.
    """
    if dialect != "activitynet" and dialect in DATA_SETS:
        return DATA_SETS[dialect]
    names = list(names)
    known = (dialect for dialect in DIALECTS.complete().values() if dialect.tious)
    return next((data_set for data_set in known if data_set.owns(names)), OWN)


def role_by_name(name: str) -> Role | None:
    """The part that a video plays by its name alone, as THUMOS14's do, or None."""
    roles = (dialect.role(name) for dialect in DIALECTS.complete().values())
    return next((role for role in roles if role is not None), None)
