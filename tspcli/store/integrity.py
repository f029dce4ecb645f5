"""Which videos of a store are as they were written, and a store of those alone."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tspcli.core.child_process import run_isolated
from tspcli.core.files import absolute, explain_write_errors, link_or_copy, sync_folder
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, TspError
from tspcli.store.hdf5_file import (
    is_marked_open,
    remove_mark,
    require_closed,
    require_no_writer,
)
from tspcli.store.store import FeatureStore
from tspcli.store.store_writer import new_store

_LIMIT_S = 3600.0
_LIMIT_BYTES = 4 << 30
# HDF5 may crash or hang on a damaged file without checksums of its own; neither may end the process
# that examines it.
_EXAMINE = """\
from tspcli.store.integrity import print_findings
print_findings(sys.argv[1])
"""


@dataclass
class Examination:
    """What is intact in a store, and what is not.

    Attributes:
        path: The store.
        intact: Keys of the videos whose rows and attributes are as they were written.
        damaged: Key to what is wrong, for the others.
        unchecked: Videos that can be read but have no checksum.
        problems: What is wrong with the file apart from its videos.
        notes: What is worth knowing and no damage.
        is_global: Whether it holds one vector per video, which :func:`repair_store` does not save.
        is_linked: Whether it leads to the rows of other stores, likewise.
        is_indexed: Whether it has an index, without which nothing shows that a video is missing.
    """

    path: str
    intact: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_global: bool = False
    is_linked: bool = False
    is_indexed: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether damage was found."""
        return bool(self.damaged or self.problems)

    @property
    def is_whole(self) -> bool:
        """Whether everything was compared with a checksum, and nothing differs."""
        return not self.is_damaged and not self.unchecked

    @property
    def savable(self) -> list[str]:
        """The videos that a repair writes into the new store."""
        return [] if self.is_global else sorted([*self.intact, *self.unchecked])

    @property
    def lacks_only_an_index(self) -> bool:
        """Whether the store is intact and :func:`repair_store` would add the missing index."""
        return not self.is_indexed and self.is_whole and not self.is_global and bool(self.intact)

    def to_dict(self) -> dict[str, Any]:
        """The examination as plain values."""
        return {**asdict(self), "is_whole": self.is_whole, "is_damaged": self.is_damaged}


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Attributes:
        found: What was found before.
        kept: Videos in the repaired store.
        lost: Videos that are not in it, to be computed again.
        original: Path of the damaged file now; None if nothing had to be done.
    """

    found: Examination
    kept: list[str]
    lost: list[str]
    original: str | None

    def to_dict(self) -> dict[str, Any]:
        """The repair as plain values."""
        return {**asdict(self), "found": self.found.to_dict()}


def examine_store(path: str | Path, *, timeout_s: float = _LIMIT_S) -> Examination:
    """Compare everything in a store with its checksums, in a child process; changes nothing.

    Args:
        path: The store.
        timeout_s: After how many seconds reading it counts as not terminating.

    Raises:
        StoreError: If there is no such file, or it is marked as open for writing.
        StoreLockedError: If another program has it open for writing.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"There is no file {path}.", path=path)
    require_closed(path)
    result = run_isolated(
        _EXAMINE, absolute(path), timeout_s=timeout_s, memory_limit_bytes=_LIMIT_BYTES
    )
    if result.timed_out:
        return Examination(str(path), problems=["Reading it with HDF5 does not terminate."])
    if result.problem is not None:
        return Examination(str(path), problems=[f"HDF5 cannot read it: {result.problem}."])
    return Examination(**{**result.answer, "path": str(path)})


def print_findings(path: str) -> None:
    """Print what :func:`check_store` finds as JSON; runs in a process of its own."""
    sys.stdout.write(json.dumps(asdict(check_store(path))))


def check_store(path: str | Path) -> Examination:
    """Compare everything in a store with its checksums, in this process."""
    found = Examination(str(path))
    try:
        with FeatureStore(path, salvage=True) as store:
            found.problems += store.damage
            found.is_linked = store.is_linked
            found.is_indexed = store.is_indexed
            for key in store:
                _check_video(store, key, found)
            for key in store.indexed_keys:
                if key not in store:
                    found.damaged[key] = "it is missing"
    except TspError as error:
        found.problems.append(error.message)
    if not found.is_indexed and not found.problems:
        found.notes.append(
            "It has no index: another program or an earlier version wrote it or changed it since."
            + (" --repair adds one." if found.lacks_only_an_index else "")
        )
    return found


def _check_video(store: FeatureStore, key: str, found: Examination) -> None:
    try:
        if store.is_vector(key):
            found.is_global = True
            store.read_vector(key)
            verdict = True if store.is_indexed else None
        else:
            video = store[key]
            verdict = video.verify()
            if verdict is None:
                _ = video.rows, video.attrs
    except (TspError, KeyError) as error:
        found.damaged[key] = str(getattr(error, "message", error))
        return
    if verdict is None:
        found.unchecked.append(key)
    elif verdict:
        found.intact.append(key)
    else:
        found.damaged[key] = "its rows or attributes are not as they were written"


def repair_store(path: str | Path) -> Repair:
    """Write the intact videos into a store of the same name, and keep the damaged file beside it.

    Raises:
        StoreError: If there is no such file, nothing of it can be saved, or the disk is full; then
            everything stays as it is.
        StoreLockedError: If a run is writing it, or another program has it open for writing.
    """
    path = Path(path)
    with one_writer(path):
        require_no_writer(path)
        marked = is_marked_open(path)
        if marked:
            remove_mark(path)
        found = examine_store(path)
        if marked:
            found.notes.append("The mark of a program that was killed while writing it is removed.")
        if not found.is_damaged and not found.lacks_only_an_index:
            return Repair(found, found.savable if not found.is_global else found.intact, [], None)
        _require_repairable(path, found)
        # Where nothing is damaged only the index is missing, and every row was checked.
        original = _keep_original(path) if found.is_damaged else None
        try:
            with (
                FeatureStore(path, salvage=True) as damaged,
                new_store(path, damaged.metadata.to_hdf5()) as store,
            ):
                for key in found.savable:
                    store.add(key, damaged[key].dataset, damaged[key].attrs)
        except BaseException:
            if original is not None:
                with suppress(OSError):
                    original.unlink()
            raise
        return Repair(
            found, found.savable, sorted(found.damaged), str(original) if original else None
        )


def _require_repairable(path: Path, found: Examination) -> None:
    wrong = "; ".join([*found.problems, *sorted(found.damaged.values())[:3]])
    remedy = None
    if found.is_global:
        what = "it holds global features"
        remedy = "Compute them again from the store of features: tsp gvf --features FEATS.h5"
    elif found.is_linked:
        what = "it holds only links"
        remedy = "Repair the stores that it leads to, then write it again with `tsp merge --link`."
    elif not found.savable:
        what = "not one of its videos is intact"
        remedy = "Restore the file from a copy, or compute it again."
    else:
        return
    raise StoreError(
        f"{path} cannot be repaired, because {what}: {wrong}", remedy=remedy, path=path
    )


def _keep_original(path: Path) -> Path:
    """Give the file a second name beside its own."""
    number = 1
    while (name := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with explain_write_errors(name):
        link_or_copy(path, name)
        sync_folder(path.parent)
    return name
