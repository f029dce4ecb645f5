"""One writer per output: its lock, and what it leaves beside the output."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tspcli.core.run_dir import lock_store, writer_of
from tspcli.errors import StoreError, StoreLockedError


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    out = tmp_path / "feats.h5"
    code = (
        "import sys, time; from pathlib import Path; from tspcli.core.run_dir import lock_store\n"
        "with lock_store(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(StoreLockedError, match=f"process {holder.pid} on "), lock_store(out):
            pass
        assert f"process {holder.pid} on " in str(writer_of(out))
    finally:
        holder.kill()
        holder.wait()
    with lock_store(out):
        assert str(os.getpid()) in (tmp_path / "feats.h5.lock").read_text()
    assert writer_of(out) is None
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_taken_from_under_a_run_is_left_to_its_next_holder(tmp_path: Path) -> None:
    out = tmp_path / "out" / "feats.h5"
    with lock_store(out):
        shutil.rmtree(out.parent)
        with ExitStack() as other:
            other.enter_context(lock_store(out))
            held = other.pop_all()
    try:
        with pytest.raises(StoreLockedError), lock_store(out):
            pass
    finally:
        held.close()


def test_a_file_system_without_locks_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StoreError) as caught, lock_store(tmp_path / "feats.h5"):
        pass
    assert caught.value.data["path"] == tmp_path / "feats.h5.lock"
