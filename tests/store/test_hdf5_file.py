"""Files that are sound but cannot be opened as usual, and files that are no HDF5."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.damaged_stores import small_store
from tests.builders.refusals import refused
from tests.store.test_parts import commit, folder
from tests.store.test_store import metadata, rows
from tspcli.cli.main import cli
from tspcli.errors import StoreError, StoreLockedError, TspError
from tspcli.store import open_store, write_store
from tspcli.store.gvf import is_gvf
from tspcli.store.hdf5_file import is_hdf5, is_marked_open, open_hdf5, remove_mark
from tspcli.store.integrity import examine_store, repair_store
from tspcli.store.merge import merge_stores

HOLD = """\
import h5py, sys
file = h5py.File(sys.argv[1], sys.argv[2])
{change}
print("open", flush=True)
sys.stdin.read()
"""
CHANGES = {
    "open": "",
    "an attribute": "file.attrs['note'] = 'x'",
    "rows": "file['v'][0] = 7; file.flush()",
    "a video": "file['w'] = file['v'][()]; file.flush()",
}


@contextmanager
def held(path: Path, mode: str = "a", change: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that has a file open; it is killed at the end, with the file open."""
    arguments = [sys.executable, "-c", HOLD.format(change=change), str(path), mode]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "f.h5", [("v", rows(3), {})], metadata())
    return tmp_path / "f.h5"


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_file_that_another_program_writes_is_not_called_damaged(store: Path, change: str) -> None:
    with held(store, change=change) as process:
        for read in (open_store, examine_store, repair_store):
            with refused(StoreLockedError, path=store) as caught:
                read(store)
            assert f"process {process.pid} " in str(caught.value.data["holder"])


def test_every_command_names_who_holds_a_store(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held(store):
        for command in (
            ["inspect", store],
            ["compare", store, store],
            ["plot", store, "v", "--out", tmp_path / "v.svg"],
            ["merge", store, "--out", out],
            ["gvf", "--features", store, "--out", out],
            ["export", store, "--to", "npy", "--out", out],
            ["doctor", store],
        ):
            error = CliRunner().invoke(cli, list(map(str, command)), standalone_mode=False)
            assert isinstance(error.exception, StoreLockedError), command
    assert not out.exists()


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_reader_and_this_process_hinder_nobody(store: Path, mode: str) -> None:
    if mode == "r":
        with held(store, "r"), open_store(store) as opened:
            np.testing.assert_array_equal(opened["v"].checked_rows(), rows(3))
    with h5py.File(store, mode), open_store(store) as opened:
        np.testing.assert_array_equal(opened["v"].checked_rows(), rows(3))


def test_what_a_run_computed_waits_until_the_store_is_closed(store: Path, tmp_path: Path) -> None:
    parts = folder(tmp_path)
    parts.store = store
    commit(parts, "a", seed=1)
    with held(store), refused(StoreLockedError, path=store):
        parts.assemble()
    assert list(folder(tmp_path).parts) == ["a"], "nothing is computed again"
    repair_store(store)
    assert parts.assemble() == 2
    with open_store(store) as opened:
        assert sorted(opened) == ["a", "v"]


@pytest.mark.parametrize("change", ["open", "an attribute"])
def test_a_mark_of_a_killed_program_is_removed_and_nothing_lost(store: Path, change: str) -> None:
    data = store.read_bytes()
    with held(store, change=CHANGES[change]):
        pass
    assert is_marked_open(store)
    for read in (open_store, examine_store):
        with refused(StoreError, path=store, kind="marked-open"):
            read(store)
    repair = repair_store(store)
    assert repair.kept == ["v"] and repair.original is None
    assert store.read_bytes() == data, "the checksum is the one that HDF5 wrote"


def test_what_a_killed_program_changed_is_found_out(tmp_path: Path) -> None:
    store = small_store(tmp_path / "f.h5")
    with held(store, change="file['v1'][0] = 7; file['w'] = [[1.0]]; file.flush()"):
        pass
    repair = repair_store(store)
    assert repair.original is not None and repair.lost == ["v1"]
    assert repair.kept == ["v0", "v2", "v3", "v4", "v5", "w"]
    assert repair.found.unchecked == ["w"]
    assert examine_store(store).is_indexed


def test_the_checksum_of_a_mark_is_hdf5s_own(tmp_path: Path) -> None:
    for number, size in enumerate((0, 7, 5000)):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            file["v"] = np.zeros((size, 3))
        data = path.read_bytes()
        remove_mark(path)
        assert path.read_bytes() == data


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_read(
    store: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h5py, "File", without_locks(h5py.File, number))
    with open_store(store) as opened:
        np.testing.assert_array_equal(opened["v"].checked_rows(), rows(3))
    assert not is_gvf(store) and is_hdf5(store)
    merge_stores([store], store.with_name("merged.h5"))


def without_locks(open_file: Callable[..., h5py.File], number: int) -> Callable[..., h5py.File]:
    def opened(name: Any, *words: Any, locking: Any = None, **more: Any) -> h5py.File:
        if words and locking is not False:
            raise OSError(number, f"unable to lock file, errno = {number}")
        return open_file(name, *words, locking=locking, **more)

    return opened


def test_a_file_system_without_locks_in_earnest(store: Path, tmp_path: Path) -> None:
    """The same with a system whose ``flock`` fails, if a C compiler is there to make one."""
    source, library = tmp_path / "flock.c", tmp_path / "flock.so"
    source.write_text(
        "#include <errno.h>\nint flock(int fd, int how) { errno = ENOLCK; return -1; }\n"
    )
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler")
    code = (
        "import sys; from tests.store.test_store import metadata, rows\n"
        "from tspcli.store import open_store, write_store\n"
        "write_store(sys.argv[2], [('w', rows(2), {})], metadata())\n"
        "print([open_store(path)[key].checked_rows().shape for path, key in "
        "((sys.argv[1], 'v'), (sys.argv[2], 'w'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store, tmp_path / "new.h5"],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[(3, 4), (2, 4)]\n", done.stderr


def torch_file(path: Path) -> None:
    import torch

    torch.save({"v": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: np.save(path.open("wb"), np.zeros((3, 4))), ".npy"),
        (lambda path: np.savez(path.open("wb"), v=np.zeros((3, 4))), ".npz"),
        (torch_file, "torch.save"),
        (lambda path: path.write_bytes(pickle.dumps({"v": [1.0]})), "pickle"),
        (lambda path: path.write_bytes(gzip.compress(b"x")), "gzip"),
        (lambda path: path.write_text('\n {"v": [1]}'), "JSON"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs"),
        (lambda path: path.write_text("f0,f1\n0,1\n"), "text"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)), "MATLAB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_hdf5_is_called_by_its_name(
    tmp_path: Path, write: Callable[[Path], object], found: str
) -> None:
    write(tmp_path / "f.h5")
    with refused(StoreError, path=tmp_path / "f.h5", kind="not-hdf5") as caught:
        open_store(tmp_path / "f.h5")
    assert found in str(caught.value.data["found"])
    assert not is_hdf5(tmp_path / "f.h5")


def test_a_video_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(bytes(100))
    with refused(StoreError, kind="not-hdf5") as caught:
        open_store(tmp_path / "v.mp4")
    assert "tsp extract" in str(caught.value.data["found"])


def test_hdf5_behind_a_block_of_another_program(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w", userblock_size=1024) as file:
        file["v"] = rows(2)
    assert is_hdf5(tmp_path / "f.h5")
    with open_store(tmp_path / "f.h5") as opened:
        np.testing.assert_array_equal(opened["v"].rows, rows(2))


def test_a_file_that_ends_early_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    for read in (open_hdf5, open_store):
        with pytest.raises(TspError) as caught:
            read(tmp_path / "f.h5")
        assert isinstance(caught.value, StoreError)
