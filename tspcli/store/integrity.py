"""Which videos of a store are as they were written, and a store of those alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.core.child_process import run_isolated
from tspcli.core.files import absolute, explain_write_errors, link_or_copy, sync_folder
from tspcli.core.run_dir import one_writer
from tspcli.core.text import counted
from tspcli.errors import StoreError, TspError
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import LINKED_ATTRIBUTE, FeatureStore, open_store
from tspcli.store.store_writer import new_store
from tspcli.store.trailer import Placed, Trailer, missing_bytes, read_trailer

_LIMIT_S = 3600.0
_LIMIT_BYTES = 4 << 30
# HDF5 may crash or hang on a damaged file; neither may end the process that examines it.
_LOOK = """\
from tspcli.store.integrity import print_findings
print_findings(sys.argv[1])
"""


@dataclass
class Examination:
    """What is whole in a store, and what is not.

    Attributes:
        path: The store.
        intact: Keys of the videos whose rows and attributes are as they were written.
        damaged: Key to what is wrong, for the others.
        unchecked: Videos that can be read but carry no checksum.
        problems: What is wrong with the file beside its videos.
        notes: What is worth knowing and no damage.
        is_global: Whether it holds one vector a video, which :func:`repair_store` does not save.
    """

    path: str
    intact: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_global: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether damage was found."""
        return bool(self.damaged or self.problems)

    @property
    def is_whole(self) -> bool:
        """Whether everything was compared with a checksum, and none differs."""
        return not self.is_damaged and not self.unchecked

    @property
    def savable(self) -> list[str]:
        """The videos that a repair writes into the new store."""
        return [] if self.is_global else sorted([*self.intact, *self.unchecked])

    def to_dict(self) -> dict[str, Any]:
        """The examination as plain values."""
        return {**asdict(self), "is_whole": self.is_whole, "is_damaged": self.is_damaged}


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Attributes:
        found: What was found before.
        kept: Videos in the repaired store.
        lost: Videos that are not, to be computed again.
        original: Where the damaged file lies now; None if nothing had to be done.
    """

    found: Examination
    kept: list[str]
    lost: list[str]
    original: str | None

    def to_dict(self) -> dict[str, Any]:
        """The repair as plain values."""
        return {**asdict(self), "found": self.found.to_dict()}


def examine_store(path: str | Path) -> Examination:
    """Compare everything in a store with its checksums. Reads every row; changes nothing.

    Raises:
        StoreError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"There is no file {path}.", remedy="Check the path.")
    found = Examination(str(path))
    try:
        trailer = read_trailer(path)
    except StoreError as error:
        trailer = None
        found.problems.append(error.message)
    if trailer is not None:
        if LINKED_ATTRIBUTE in trailer.attributes and trailer.frame_is_intact(path):
            _compare_with_checksums(path, found)
        else:
            _compare_with_index(path, trailer, found)
        return found
    if not found.problems and (missing := missing_bytes(path)):
        found.problems.append(f"It was cut off: at least {counted(missing, 'byte')} are missing.")
    no_index = not found.problems
    _compare_with_checksums(path, found)
    if no_index:
        note = "There is no index at its end: it is of another program or an earlier version, or "
        note += "was changed since."
        found.notes.append(f"{note} --repair adds one." if _lacks_index_alone(found) else note)
    return found


def _lacks_index_alone(found: Examination) -> bool:
    return found.is_whole and not found.is_global and bool(found.intact)


def repair_store(path: str | Path) -> Repair:
    """Write the videos that are whole into a store of the same name; keep the damaged file beside.

    Raises:
        StoreError: If there is no such file, nothing of it can be saved, or the disk is full; then
            everything stays as it is.
        StoreLockedError: If a run is writing it.
    """
    path = Path(path)
    with one_writer(path):
        found = examine_store(path)
        trailer = _readable_trailer(path)
        if not found.is_damaged and (trailer is not None or not _lacks_index_alone(found)):
            return Repair(found, sorted([*found.intact, *found.unchecked]), [], None)
        if found.is_global:
            raise StoreError(
                f"{path} holds global features, which are not repaired: "
                f"{'; '.join(found.problems) or 'some are damaged'}",
                remedy="Make them again from the store of features: tsp gvf --features FEATS.h5",
            )
        if trailer is not None and LINKED_ATTRIBUTE in trailer.attributes:
            raise StoreError(
                f"{path} is not whole and holds links alone: "
                + "; ".join([*found.problems, *sorted(found.damaged.values())[:3]]),
                remedy="Repair the stores that it leads to, then write it anew with "
                "`tsp merge --link`.",
            )
        kept = found.savable
        if not kept:
            raise StoreError(
                f"Not one video of {path} can be saved: {'; '.join(found.problems)}",
                remedy="Take a copy of the file that is whole, or compute it again.",
            )
        metadata = _metadata(path, trailer)
        # Where nothing is damaged an index is all that is missing, and every row was checked.
        original = _keep_original(path) if found.is_damaged else None
        try:
            with new_store(path, metadata) as store:
                for key, rows, attributes in (
                    _from_index(path, trailer, kept) if trailer else _from_hdf5(path, kept)
                ):
                    store.add(key, rows, attributes)
        except BaseException:
            if original is not None:
                with suppress(OSError):
                    original.unlink()
            raise
        return Repair(found, kept, sorted(found.damaged), str(original) if original else None)


def _compare_with_index(path: Path, trailer: Trailer, found: Examination) -> None:
    if trailer.frame_is_intact(path):
        # Vectors of global features are no rows, but bytes that were just compared.
        with open_store(path) as store:
            vectors = [key for key in store if key not in trailer.videos and store.is_vector(key)]
        found.is_global = bool(vectors)
        found.intact.extend(vectors)
    else:
        found.problems.append(
            "What leads HDF5 to the rows, or the attributes, is damaged; the index at the end of "
            "the file is whole."
        )
        found.is_global = not trailer.videos
    damaged = set(trailer.damaged_rows(path))
    for key in sorted(trailer.videos):
        if key in damaged:
            found.damaged[key] = "its rows are not as they were written"
        else:
            found.intact.append(key)


def _compare_with_checksums(path: Path, found: Examination) -> None:
    """Let another process read the file through HDF5, and take over what it finds."""
    result = run_isolated(
        _LOOK, absolute(path), timeout_s=_LIMIT_S, memory_limit_bytes=_LIMIT_BYTES
    )
    if result.timed_out:
        found.problems.append("Reading it with HDF5 does not terminate.")
        return
    if result.problem is not None:
        found.problems.append(f"HDF5 cannot read it: {result.problem}.")
        return
    values = result.answer
    found.intact.extend(values["intact"])
    found.unchecked.extend(values["unchecked"])
    found.damaged.update(values["damaged"])
    found.is_global = values["is_global"]
    found.problems.extend(values["problems"])


def print_findings(path: str) -> None:
    """Check a store through HDF5 and print what is found as JSON; runs in a process of its own."""
    found = Examination(path)
    try:
        with open_store(path) as store:
            for key in store:
                _check_video(store, key, found)
    except TspError as error:
        found.problems.append(error.message)
    sys.stdout.write(json.dumps(asdict(found)))


def _check_video(store: FeatureStore, key: str, found: Examination) -> None:
    try:
        if store.is_vector(key):
            found.is_global = True
            found.unchecked.append(key)
            return
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


def _readable_trailer(path: Path) -> Trailer | None:
    try:
        return read_trailer(path)
    except StoreError:
        return None


def _metadata(path: Path, trailer: Trailer | None) -> StoreMetadata:
    if trailer is not None:
        return StoreMetadata.from_attributes(trailer.attributes, str(path))
    with open_store(path) as store:
        return store.metadata


def _keep_original(path: Path) -> Path:
    """Give the file a second name beside its own."""
    number = 1
    while (name := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with explain_write_errors(name):
        link_or_copy(path, name)
        sync_folder(path.parent)
    return name


def _from_index(
    path: Path, trailer: Trailer, keys: list[str]
) -> Iterator[tuple[str, npt.NDArray[np.float32], Mapping[str, Any]]]:
    for key in keys:
        placed = trailer.videos[key]
        yield key, _map_rows(path, placed), placed.attributes


def _map_rows(path: Path, placed: Placed) -> npt.NDArray[np.float32]:
    shape = (placed.n_rows, placed.dim)
    if not placed.n_bytes:
        return np.zeros(shape, dtype="<f4")
    return np.memmap(path, dtype="<f4", mode="r", offset=placed.offset, shape=shape)


def _from_hdf5(path: Path, keys: list[str]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    with open_store(path) as store:
        for key in keys:
            video = store[key]
            yield key, video._dataset, video.attrs
