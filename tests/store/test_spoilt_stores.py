"""The judge of the store's format: spoilt files end in errors, never in other features.

Every spoilt copy is read by the reader and the examiner, and merged into a new store, in a child
process with limits of time and memory. The long form, ``pytest -m slow
tests/store/test_spoilt_stores.py``, does so with more than 10,000 copies and prints what became of
them.
"""

from __future__ import annotations

import json
import os
import resource
import select
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.spoilt_files import Spoil, spoilt_copies, truncations
from tspcli.errors import TspError
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, open_store, write_store
from tspcli.store.gvf import gvf_from_store, read_gvf
from tspcli.store.integrity import check_store
from tspcli.store.merge import merge_stores
from tspcli.store.schema import VideoAttributes, sampling_attributes
from tspcli.store.store_writer import content_checksum

pytestmark = pytest.mark.faults

HANG_S = 20.0
FILES_PER_CHILD = 500
MEMORY_BYTES = 3 << 30
GOOD = {
    *("not spoilt", "an older version", "refused", "unharmed"),
    *("one video lost", "some videos lost", "all videos lost"),
}

View = tuple[Any, dict[str, Any]]

SHAPES = {"small": (6, 5, 8), "many": (40, 30, 16), "long": (2, 12_000, 64)}
"""Videos, most rows and width; the last has videos of several chunks."""


def write(path: Path, shape: tuple[int, int, int], *, seed: int = 5, size: int = 1000,
          weights: str = "some", sha256: str = "ab") -> bytes:  # fmt: skip
    n_videos, most_rows, dim = shape
    rng = np.random.default_rng(seed)

    def videos() -> Iterator[tuple[str, Any, Any]]:
        for number in range(n_videos):
            rows = rng.standard_normal((most_rows - number % most_rows, dim)).astype(np.float32)
            attributes = VideoAttributes(
                video=f"v{number}.mp4",
                source_bytes=size + number,
                duration_s=3.5,
                decoder="pyav",
                warnings=("one",) * (number % 2),
                **sampling_attributes(Sampling()),
            ).to_hdf5()
            yield f"v{number}", rows, {**attributes, "checksum": content_checksum(rows, attributes)}

    encoder = {"backbone": "tiny", "weights": weights, "weights_sha256": sha256 * 32}
    write_store(path, videos(), StoreMetadata.build(sampling=Sampling(), encoder=encoder))
    return path.read_bytes()


def write_versions(folder: Path, shape: tuple[int, int, int]) -> tuple[bytes, list[bytes]]:
    """A store, and earlier versions of it: other rows, other settings, fewer videos."""
    path = folder / "version.h5"
    fewer = (max(1, shape[0] - 3), *shape[1:])
    older = [
        write(path, shape, seed=6),
        write(path, shape, seed=6, size=2000, weights="else", sha256="cd"),
        write(path, shape, weights="else"),
        write(path, fewer),
    ]
    return write(path, shape), older


def view_store(path: Path) -> View:
    """What the reader sees: (facts of the file, key to facts of the video or None if refused)."""
    videos: dict[str, Any] = {}
    with open_store(path) as store:
        for key in store:
            try:
                rows = store[key].checked_rows()
                videos[key] = rows.shape, rows.tobytes(), store[key].attrs
            except TspError:
                videos[key] = None
        return (store.metadata, store.file_attributes), videos


def view_gvf(path: Path) -> View:
    found = read_gvf(path)
    about = found.pool, found.metadata
    return about, {key: (vector.tobytes(), found.attributes[key]) for key, vector in found.items()}


def judge(path: Path, truth: View, older: list[View], view: Any) -> str:
    """What became of a spoilt file; a word of :data:`GOOD`, or what is wrong."""
    try:
        about, videos = view(path)
    except TspError:
        return "refused"
    if about != truth[0] or not _shows(videos, truth[1]):
        # Where the disk holds an earlier file, nothing can say that it is not the last one.
        earlier = any(about == old[0] and _shows(videos, old[1]) for old in older)
        return "an older version" if earlier else "silent change"
    if view is view_store and not _merges_faithfully(path, [truth, *older]):
        return "silent change by merging"
    lost = sum(seen is None for seen in videos.values())
    if not lost:
        return "unharmed"
    if not check_store(path).is_damaged:
        return "damage that the examination does not find"
    return (
        "one video lost"
        if lost == 1
        else "all videos lost"
        if lost == len(videos)
        else "some videos lost"
    )


def _merges_faithfully(path: Path, versions: list[View]) -> bool:
    """Whether a store that is merged from a spoilt one is refused, or a version as it was."""
    merged = path.with_name("merged.h5")
    try:
        merge_stores([path], merged, overwrite=True)
    except TspError:
        return True
    return any(view_store(merged) == version for version in versions)


def _shows(seen: dict[str, Any], written: dict[str, Any]) -> bool:
    """Whether videos are those that were written, or refused."""
    return seen.keys() == written.keys() and all(
        video in (None, written[key]) for key, video in seen.items()
    )


def judge_all(
    copies: Sequence[tuple[str, Spoil]], data: bytes, older: list[bytes], path: Path, view: Any
) -> dict[str, Counter[str]]:
    """Judge every copy; way of spoiling to counts of verdicts."""
    views = []
    for good in (data, *older):
        path.write_bytes(good)
        views.append(view(path))
        assert check_store(path).is_whole

    def judge_copy(number: int) -> str:
        spoilt = copies[number][1]()
        if spoilt in (data, *older):
            return "not spoilt"
        path.write_bytes(spoilt)
        return judge(path, views[0], views[1:], view)

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    verdicts: list[str] = []
    while len(verdicts) < len(copies):
        numbers = range(len(verdicts), len(copies))[:FILES_PER_CHILD]
        verdicts += _judge_in_child(judge_copy, numbers)
    for (name, _), verdict in zip(copies, verdicts, strict=True):
        counts[name.split()[0]][verdict] += 1
    return counts


def _judge_in_child(judge_copy: Callable[[int], str], numbers: range) -> list[str]:
    """The verdicts on some copies, up to the first that ends the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.fsync = lambda _: None  # no power is cut here
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
            for number in numbers:
                try:
                    verdict = judge_copy(number)
                except Exception as error:
                    verdict = f"{type(error).__name__} {error}"
                os.write(writing, json.dumps(verdict).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writing)
    received, hung = b"", False
    while not hung:
        hung = not select.select([reading], [], [], HANG_S)[0]
        block = b"" if hung else os.read(reading, 1 << 16)
        if not block:
            break
        received += block
    os.close(reading)
    if hung:
        os.kill(child, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    verdicts = [json.loads(line) for line in received.splitlines()]
    if len(verdicts) < len(numbers):
        verdicts.append("hang" if hung else f"crash with status {status}")
    return verdicts


def require_good(counts: dict[str, Counter[str]]) -> int:
    total: Counter[str] = sum(counts.values(), Counter())
    bad = {
        (way, verdict): n
        for way, verdicts in counts.items()
        for verdict, n in verdicts.items()
        if verdict not in GOOD
    }
    assert not bad
    return total.total() - total["not spoilt"]


def test_spoilt_stores(tmp_path: Path) -> None:
    data, older = write_versions(tmp_path, SHAPES["small"])
    copies = [*truncations(data, 160), *spoilt_copies(data, older, 240)]
    assert require_good(judge_all(copies, data, older, tmp_path / "spoilt.h5", view_store)) > 200


def test_spoilt_global_features(tmp_path: Path) -> None:
    data, older = gvf_versions(tmp_path)
    copies = [*truncations(data, 480), *spoilt_copies(data, older, 80)]
    assert require_good(judge_all(copies, data, older, tmp_path / "spoilt.h5", view_gvf)) > 60


def gvf_versions(folder: Path) -> tuple[bytes, list[bytes]]:
    versions = []
    for seed in (6, 5):
        write(folder / "rows.h5", (6, 5, 64), seed=seed)
        gvf_from_store(folder / "rows.h5", folder / "gvf.h5", overwrite=True)
        versions.append((folder / "gvf.h5").read_bytes())
    return versions[1], versions[:1]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "n_copies", "every"), [("small", 5000, 16), ("many", 3000, 16), ("long", 600, 40_000)]
)
def test_ten_thousand_spoilt_stores(tmp_path: Path, name: str, n_copies: int, every: int) -> None:
    data, older = write_versions(tmp_path, SHAPES[name])
    copies = [*truncations(data, every), *spoilt_copies(data, older, n_copies)]
    counts = judge_all(copies, data, older, tmp_path / "spoilt.h5", view_store)
    print(f"\n{name}: {len(data)} bytes, {len(copies)} copies")
    for way, verdicts in counts.items():
        print(f"  {way:12}", dict(verdicts))
    require_good(counts)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_thousand_spoilt_files_of_global_features(tmp_path: Path) -> None:
    data, older = gvf_versions(tmp_path)
    copies = [*truncations(data), *spoilt_copies(data, older, 1000)]
    counts = judge_all(copies, data, older, tmp_path / "spoilt.h5", view_gvf)
    print(f"\nglobal features: {len(data)} bytes, {len(copies)} copies", dict(counts))
    require_good(counts)
