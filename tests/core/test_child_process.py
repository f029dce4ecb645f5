"""Child processes that fail are only findings; what a container may use is read."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tspcli.core.child_process import (
    ChildProcess,
    cgroup_cores,
    default_memory_limit_bytes,
    how_it_ended,
    memory_bytes,
    run_isolated,
)


def test_an_isolated_answer_comes_back() -> None:
    code = "import json; print('noise'); print(json.dumps(sys.argv[1:]))"
    result = run_isolated(code, "a b", "ü", timeout_s=60)
    assert result.answer == ["a b", "ü"]
    assert result.problem is None and not result.timed_out


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise KeyError('what')", "KeyError: 'what'"),
        ("sys.exit(3)", "status 3"),
        ("print('no JSON')", "no answer"),
        ("", "no answer"),
    ],
)
def test_what_goes_wrong_is_said(code: str, problem: str) -> None:
    result = run_isolated(code, timeout_s=60)
    assert result.answer is None and not result.timed_out
    assert problem in str(result.problem)


def test_a_hang_ends_at_the_limit() -> None:
    started = time.monotonic()
    assert run_isolated("import time; time.sleep(60)", timeout_s=0.5).timed_out
    assert time.monotonic() - started < 30


def test_memory_is_limited() -> None:
    result = run_isolated("b'x' * (1 << 30)", timeout_s=60, memory_limit_bytes=1 << 28)
    assert "MemoryError" in str(result.problem)


def test_a_child_imports_from_where_its_parent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ours.py").write_text("where = 'here'")
    (tmp_path / "json.py").write_text("raise SystemExit('a stray module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("elsewhere")
    code = "import json, ours; print(json.dumps(ours.where))"
    assert run_isolated(code, timeout_s=60).answer == "here"


def test_a_child_says_how_it_ended() -> None:
    child = ChildProcess("tspcli.no_such_module")
    try:
        with pytest.raises(EOFError):
            child.connection.recv()
        assert "ModuleNotFoundError" in child.last_words()
        assert child.exit_status == 1
    finally:
        child.dispose()
    assert how_it_ended(-9, "").startswith("was killed by SIGKILL")


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    module = tmp_path / "sleeper.py"
    module.write_text(
        "import os, time\n"
        "from multiprocessing.connection import Connection\n"
        "from tspcli.core.child_process import die_with_parent\n"
        "def main(socket_fd, lifeline_fd):\n"
        "    die_with_parent(lifeline_fd)\n"
        "    Connection(socket_fd).send(os.getpid())\n"
        "    time.sleep(60)\n"
    )
    code = (
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import json, os\n"
        "from tspcli.core.child_process import ChildProcess\n"
        "child = ChildProcess('sleeper')\n"
        "print(json.dumps(child.connection.recv()), flush=True)\n"
        "os._exit(0)\n"
    )
    pid = run_isolated(code, timeout_s=60).answer
    deadline = time.monotonic() + 30
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_a_containers_cores_are_read(
    files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cgroup_cores(tmp_path) == cores


def test_a_containers_memory_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory_bytes(tmp_path) == 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == memory_bytes(tmp_path / "nothing")


def test_workers_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    assert gib <= default_memory_limit_bytes(1) <= 4 * gib
    assert default_memory_limit_bytes(10**6) in (gib, 4 * gib)
