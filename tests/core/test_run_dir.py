"""One writer per output: its lock, and what it leaves beside the output."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tspcli.core.files import aside_name
from tspcli.core.run_dir import (
    RunDir,
    differences,
    one_writer,
    read_report,
    report_path,
    require_same,
    writer_of,
)
from tspcli.errors import StoreError, StoreLockedError, StoreMismatchError, TrainingError


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    out = tmp_path / "feats.h5"
    code = (
        "import sys, time; from pathlib import Path; from tspcli.core.run_dir import one_writer\n"
        "with one_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(StoreLockedError, match=f"process {holder.pid} on "), one_writer(out):
            pass
        assert f"process {holder.pid} on " in str(writer_of(out))
    finally:
        holder.kill()
        holder.wait()
    with one_writer(out):
        assert str(os.getpid()) in (tmp_path / "feats.h5.lock").read_text()
    assert writer_of(out) is None
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_taken_from_under_a_run_is_left_to_its_next_holder(tmp_path: Path) -> None:
    out = tmp_path / "out" / "feats.h5"
    with one_writer(out):
        shutil.rmtree(out.parent)
        with ExitStack() as other:
            other.enter_context(one_writer(out))
            held = other.pop_all()
    try:
        with pytest.raises(StoreLockedError), one_writer(out):
            pass
    finally:
        held.close()


def test_a_file_system_without_locks_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StoreError) as caught, one_writer(tmp_path / "feats.h5"):
        pass
    assert caught.value.data["path"] == tmp_path / "feats.h5.lock"


# --- the same settings ----------------------------------------------------------------------------


def test_differences_are_named_down_to_the_value() -> None:
    stored = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "old": None}
    current = {"a": 1, "b": {"c": [1, 3], "d": "x"}, "new": 2}
    found = {"b.c": "[1, 2], not [1, 3]", "new": "nothing, not 2", "old": "None, not nothing"}
    assert differences(stored, current) == found
    assert differences(stored, stored) == {}
    with pytest.raises(StoreMismatchError) as caught:
        require_same(stored, current, "f.h5", error=StoreMismatchError, ignored=["old"])
    assert caught.value.data == {
        "path": "f.h5",
        "differences": {name: found[name] for name in ("b.c", "new")},
    }
    require_same(stored, current, "f.h5", ignored=found)


# --- a run's own folder ---------------------------------------------------------------------------


def read_about(path: Path) -> dict[str, int]:
    return dict(json.loads(path.read_text()))


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run", "about.json", ("about.json", "last.pth", "log.json"))


def begin(folder: RunDir, **identity: int) -> None:
    with folder.opened():
        folder.about_path.write_text(json.dumps(identity))
        (folder.path / "last.pth").touch()


def test_a_run_resumes_in_its_own_folder_alone(folder: RunDir) -> None:
    assert not folder.require_own(read_about, {"seed": 1})
    assert not folder.path.exists()
    begin(folder, seed=1)
    assert folder.require_own(read_about, {"seed": 1})
    with pytest.raises(TrainingError) as caught:
        folder.require_own(read_about, {"seed": 2})
    assert caught.value.data["differences"] == {"seed": "1, not 2"}
    assert folder.require_own(read_about, {"seed": 2}, ignored=["seed"])
    with pytest.raises(TrainingError, match="--resume"):
        folder.require_own(read_about, {"seed": 1}, resume=False)


@pytest.mark.parametrize("name", ["last.pth", "log.json"])
def test_files_of_no_run_are_not_replaced(folder: RunDir, name: str) -> None:
    folder.path.mkdir()
    (folder.path / "others.txt").touch()
    assert not folder.require_own(read_about, {})
    (folder.path / name).touch()
    with pytest.raises(TrainingError) as caught:
        folder.require_own(read_about, {})
    assert caught.value.data["path"] == folder.path / name


def test_a_file_is_no_folder_for_a_run(folder: RunDir) -> None:
    folder.path.touch()
    with pytest.raises(TrainingError) as caught:
        folder.require_own(read_about, {})
    assert caught.value.data["path"] == folder.path


def test_what_a_killed_run_left_goes_and_what_is_the_users_stays(folder: RunDir) -> None:
    begin(folder, seed=1)
    leftover, mine = aside_name(folder.path / "last.pth"), folder.path / "mine.txt"
    leftover.touch()
    mine.touch()
    with folder.opened(), pytest.raises(StoreLockedError), folder.opened():
        pass
    assert folder.present() == [folder.about_path, folder.path / "last.pth"]
    assert not leftover.exists()
    with folder.opened(overwrite=True):
        assert folder.present() == []
    assert list(folder.path.iterdir()) == [mine]


# --- the report -----------------------------------------------------------------------------------


def test_a_report_is_read_or_refused(tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    path = report_path(out)
    assert path.name == "f.h5.report.json"
    assert read_report(out) is None
    path.write_text(json.dumps({"videos": [{"key": "v", "status": "done"}]}))
    assert read_report(out) == {"videos": [{"key": "v", "status": "done"}]}
    for damage in ("{", "[]", '{"videos": [{}]}', '{"videos": [], "shard": {"keys": [[]]}}'):
        path.write_text(damage)
        with pytest.raises(StoreError) as caught:
            read_report(out)
        assert caught.value.data["path"] == path
