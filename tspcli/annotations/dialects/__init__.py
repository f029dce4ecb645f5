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

from tspcli.core.extension_table import Table

Role = Literal["training", "validation", "testing"]
"""The part that a video plays, in ActivityNet's words."""

GapRule = Literal["union", "official"]
"""Where background rows lie: see :func:`tspcli.annotations.training_tables.background_segments`."""


@dataclass(frozen=True)
class Dialect:
    """One way in which annotations are written, and the conventions of its data set.

    Attributes:
        name: What users and reports call it.
        module: The module that detects and reads it.
        summary: What its files look like, in a few words.
        gap_rule: How its gaps between actions become background rows.
        min_gap_s: Shortest gap, in seconds, that becomes one.
        splits: What the training tables of its subsets are called, where not by the subset's name.
        tious: The thresholds of its data set's evaluation protocol. Empty for a dialect that is
            no data set of its own; what follows matters for data sets alone.
        roles_by_prefix: How the names of its videos begin, with the part that such a video plays,
            whatever word its files use.
        id_prefix: What readers of features put before the IDs of its videos.
        resized: Whether readers resize every video to one number of rows; otherwise rows keep
            their stride, and classes are counted.
        subset_words: What the authors' annotations call the parts, where not by the roles' names,
            for readers that ask by word.
    """

    name: str
    module: str
    summary: str
    gap_rule: GapRule = "union"
    min_gap_s: float = 16 / 15
    splits: Mapping[str, str] = field(default_factory=dict)
    tious: tuple[float, ...] = ()
    roles_by_prefix: Mapping[str, Role] = field(default_factory=dict)
    id_prefix: str = ""
    resized: bool = False
    subset_words: Mapping[str, str] = field(default_factory=dict)


def _spaced(first: float, last: float, number: int) -> tuple[float, ...]:
    """The floats of ``numpy.linspace``, which the official evaluation code compares with."""
    step = (last - first) / (number - 1)
    return (*(first + i * step for i in range(number - 1)), last)


_HERE = "tspcli.annotations.dialects"

DIALECTS: Table[Dialect] = Table(
    "tspcli.dialects",
    (
        Dialect(
            "activitynet",
            f"{_HERE}.activitynet",
            'ActivityNet\'s JSON, {"database": {ID: {"annotations": ...}}}',
            gap_rule="official",
            min_gap_s=16 / 3,
            splits={"training": "train", "validation": "valid", "testing": "test"},
            tious=_spaced(0.5, 0.95, 10),
            id_prefix="v_",
            resized=True,
        ),
        Dialect(
            "thumos14",
            f"{_HERE}.thumos14",
            "THUMOS14's folder of class files such as BaseballPitch_val.txt",
            tious=_spaced(0.3, 0.7, 5),
            roles_by_prefix={"video_validation_": "training", "video_test_": "validation"},
            subset_words={"training": "Validation", "validation": "Test", "testing": "Test"},
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
            "table",
            f"{_HERE}.table",
            "a table of video, start, end and label, such as those of official TSP and G-TAD",
        ),
        Dialect(
            "metadata",
            f"{_HERE}.metadata",
            "a table of videos: official TSP's metadata or BSN's video_info_new.csv",
        ),
    ),
)
"""Every dialect; the first that detects a source reads it."""


class _DataSets(Mapping[str, Dialect]):
    """The part of :data:`DIALECTS` that has a protocol, entries added later included."""

    def __getitem__(self, name: str) -> Dialect:
        dialect = DIALECTS[name]
        if not dialect.tious:
            raise KeyError(name)
        return dialect

    def __iter__(self) -> Iterator[str]:
        return (name for name, dialect in DIALECTS.complete().items() if dialect.tious)

    def __len__(self) -> int:
        return sum(1 for _ in self)


DATA_SETS: Mapping[str, Dialect] = _DataSets()
"""The dialects that are data sets with an evaluation protocol, by name."""


def data_set_of(names: Iterable[str]) -> Dialect:
    """The data set to which all these videos belong by their names, else the first one."""
    names = list(names)
    known = list(DATA_SETS.values())
    fitting = (d for d in known if names and all(_role(d, name) is not None for name in names))
    return next(fitting, known[0])


def role_by_name(name: str) -> Role | None:
    """The part that a video plays by its name alone, as THUMOS14's do, or None."""
    roles = (_role(dialect, name) for dialect in DIALECTS.complete().values())
    return next((role for role in roles if role is not None), None)


def _role(dialect: Dialect, name: str) -> Role | None:
    return next((r for p, r in dialect.roles_by_prefix.items() if name.startswith(p)), None)
