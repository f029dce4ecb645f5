"""The command line: quick to answer, helpful everywhere, honest in its exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

import tspcli
from tests.builders.videos import make_video
from tspcli.cli.main import COMMANDS, cli, main
from tspcli.errors import UsageError
from tspcli.store import open_store

HEAVY = {
    "torch", "torchvision", "av", "decord", "h5py", "cv2", "matplotlib", "rich", "numpy",
    "starlette", "uvicorn", "asyncio",
}  # fmt: skip
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    """What a command wrote to its two streams, processes that it started included."""

    stdout: str
    stderr: str


Run = Callable[..., Said]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """``tsp`` in this process, which has to end with a code."""

    def run(*arguments: object, code: int = 0) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = Said(*capfd.readouterr())
        assert ended.value.code == code, said
        return said

    return run


def program(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """``tsp`` as a program."""
    command = [sys.executable, "-m", "tspcli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, **options)


def all_commands() -> Iterator[tuple[str, click.Command]]:
    for name, entry in COMMANDS.items():
        command = importlib.import_module(entry.module).command
        yield name, command
        if isinstance(command, click.Group):
            for child_name, child in command.commands.items():
                yield f"{name} {child_name}", child


@pytest.mark.parametrize(
    ("name", "command"), list(all_commands()), ids=lambda value: str(value)[:30]
)
def test_every_help_page_has_an_example_and_explains_its_options(
    run: Run, name: str, command: click.Command
) -> None:
    text = run(*name.split(), "--help").stdout
    assert "Example" in text
    assert "\\b" not in text
    assert f"tsp {name}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"tsp {name} {parameter.opts[0]} has no help"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, click\n"
        "from tspcli.cli.main import COMMANDS, cli\n"
        "pages = [[name] for name in COMMANDS]\n"
        "for [name] in list(pages):\n"
        "    children = getattr(cli.get_command(None, name), 'commands', ())\n"
        "    pages += [[name, child] for child in children]\n"
        "assert ['store', 'list'] in pages and ['recipes', 'show'] in pages, pages\n"
        "for arguments in [['--help'], *([*page, '--help'] for page in pages)]:\n"
        "    try: cli.main(arguments, standalone_mode=False)\n"
        "    except click.exceptions.Exit: pass\n"
        "print('LOADED', sorted(set(sys.modules) & set(sys.argv[1:])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(HEAVY)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stdout[-500:] + done.stderr


def test_the_package_lists_its_public_names() -> None:
    assert dir(tspcli) == ["__version__", "extract", "load_encoder", "open_store"]
    assert all(callable(getattr(tspcli, name)) for name in dir(tspcli)[1:])


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in COMMANDS if f"tsp {name}" not in readme]
    assert not missing


def test_a_misspelt_command_gets_a_hint(run: Run) -> None:
    assert "Did you mean 'extract'?" in run("extrct", code=2).stderr


def test_version_as_a_program() -> None:
    done = program("--version")
    assert done.returncode == 0 and tspcli.__version__ in done.stdout


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "v_one.mp4"
    return make_video(path, fps=30, n_frames=80, width=96, height=64)


RANDOM = ("--weights", "random", "--backbone", "tiny", "--device", "cpu")


def test_extract_prints_json_on_stdout_and_all_else_on_stderr(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "feats.h5"
    done = program("extract", "--videos", video, "--out", out, *RANDOM, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"]["done"] == 1
    said = re.search(
        r"1 done\. ([\d.]+) s of video, 2 clips in ([\d.]+) s: ([\d.]+) times real time, "
        r"limited by (\w+)\.",
        " ".join(done.stderr.split()),
    )
    assert said is not None, done.stderr
    assert float(said[1]) == pytest.approx(report["video_s"], abs=0.06)
    assert float(said[2]) == pytest.approx(report["wall_s"], abs=0.06)
    assert float(said[3]) == pytest.approx(report["video_s"] / report["wall_s"], abs=0.06)
    assert said[4] == report["bottleneck"]
    assert report["elapsed_s"] < report["wall_s"], "loading the encoder counts too"
    with open_store(out) as store:
        assert store["v_one"].n_rows == 2


def test_extract_exits_with_3_when_a_video_failed(run: Run, video: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    done = run(
        "extract", "--videos", tmp_path / "bad.mp4", "--videos", video, "--out",
        tmp_path / "feats.h5", *RANDOM, code=3,
    )  # fmt: skip
    assert "bad.mp4" in done.stderr and "not-a-video" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_path_is_wrong_usage(run: Run, video: Path, tmp_path: Path) -> None:
    gone, out = tmp_path / "gone.mp4", tmp_path / "feats.h5"
    for command in (("extract", *RANDOM), ("gvf", *RANDOM), ("localize", "predict", "--run", "r")):
        done = run(*command, "--videos", video, "--videos", gone, "--out", out, code=2)
        assert str(gone) in done.stderr and "does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []
    # What a list names may be missing; the others are done.
    listed = tmp_path / "list.txt"
    listed.write_text(f"{video}\n{gone}\n")
    unlimited = ("--decode-timeout", "inf")
    done = run("extract", "--videos", listed, "--out", out, *RANDOM, *unlimited, code=3)
    assert "gone.mp4: missing" in done.stderr
    with open_store(out) as store:
        assert list(store) == ["v_one"]


def test_nothing_to_do_has_no_speed_and_one_video_no_plural(
    run: Run, video: Path, tmp_path: Path
) -> None:
    arguments = ("extract", "--videos", video, "--out", tmp_path / "feats.h5", *RANDOM)
    assert "1 video to do" in run(*arguments).stderr
    again = run(*arguments).stderr
    assert "real time" not in again and "1 kept" in again


def test_errors_say_what_to_do_and_show_no_traceback(run: Run, tmp_path: Path) -> None:
    arguments = ("extract", "--videos", tmp_path, "--out", tmp_path / "f.h5", *RANDOM)
    done = run(*arguments, code=2)
    assert "No video found" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(UsageError):
        main([*map(str, arguments), "--debug"])


@pytest.mark.parametrize(
    "arguments",
    [("--shard", "5/4"), ("--workers", "0"), ("--stride", "0"), ("--precision", "fp8"),
     ("--frame-rate", "-1"), ("--device", "tpu"), ("--batch-size", "many")],
)  # fmt: skip
def test_wrong_usage_exits_with_2(
    run: Run, video: Path, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    done = run(
        "extract", "--videos", video, "--out", tmp_path / "f.h5", *RANDOM, *arguments, code=2
    )
    assert arguments[1] in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_reader_that_hangs_up_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tspcli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()


def test_the_group_lists_its_commands() -> None:
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        ("extract", "--videos", ".", "--weights", "tiny", "--out"),
        ("inspect",),
        ("doctor",),
        ("merge", "a.h5", "--out"),
    ],
)
def test_a_name_too_long_for_the_system_is_wrong_usage(run: Run, command: tuple[str, ...]) -> None:
    said = run(*command, "x" * 300 + ".h5", code=2).stderr
    assert "has 303 bytes" in said and "too long" in said
    assert "bug in tspcli" not in said


@pytest.mark.parametrize(
    ("before", "torn_down"),
    [
        ("", False),
        # Work that Python would wait for, and somebody who looks on.
        ("threading.Thread(target=lambda: (time.sleep(0.5), print('thread'))).start()", True),
        ("sys.setprofile(lambda *_: None)", True),
    ],
)
def test_a_command_ends_at_once_unless_something_is_left_to_do(
    before: str, torn_down: bool
) -> None:
    script = (
        "import atexit, sys, threading, time\n"
        "class Last:\n"
        "    def __del__(self, write=sys.stdout.write, flush=sys.stdout.flush):\n"
        "        write('torn down\\n'), flush()\n"
        "last = Last()\n"
        "atexit.register(print, 'atexit')\n"
        "from tspcli.cli.main import entry\n"
        "sys.argv = ['tsp', 'weights', 'list']\n"
        f"{before}\n"
        "entry()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "atexit" in done.stdout and "r2plus1d_34" in done.stdout
    assert ("thread" in done.stdout) == ("Thread" in before)
    assert ("torn down" in done.stdout) == torn_down


def test_a_profile_is_printed_and_a_caller_goes_on() -> None:
    words = ["-m", "cProfile", "-m", "tspcli", "weights", "list"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert "function calls" in done.stdout
    script = (
        "import sys\n"
        "from tspcli.cli.main import main\n"
        "sys.argv = ['tsp', 'weights', 'list']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("after\n")


def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m tspcli weights list >&- 2>{tmp_path / 'said'}"
    assert subprocess.run(["sh", "-c", command], cwd=ROOT).returncode == 0
    assert (tmp_path / "said").read_text() == ""


def test_output_that_has_no_room_is_no_fault_of_ours() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")  # Linux alone has it
    command = f"{sys.executable} -m tspcli weights list >/dev/full"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: A disk is full, perhaps the one that the output goes to.\n"


# As a terminal, rich shows its bars on stderr; what becomes of the other streams is the same.
@pytest.mark.parametrize(
    ("listeners", "terminal"),
    [
        ("2>/dev/full", False),
        ("2>/dev/full", True),
        ("2>&1 | head -c 1", True),
        ("--json >&-", False),
        ("2>&-", True),
        ("<&- >&- 2>&-", False),
    ],
)
def test_a_run_goes_on_when_nobody_listens(
    video: Path, tmp_path: Path, listeners: str, terminal: bool
) -> None:
    if "full" in listeners and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")  # Linux alone has it
    out = tmp_path / "f.h5"
    words = ["extract", "--videos", str(video), "--out", str(out), *RANDOM]
    command = f"{shlex.join([sys.executable, '-m', 'tspcli', *words])} {listeners}"
    # With it, rich takes every stream for a terminal.
    environment = {**os.environ, **({"FORCE_COLOR": "1"} if terminal else {})}
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "bug in tspcli" not in done.stderr
    with open_store(out) as store:
        assert list(store) == [video.stem]
