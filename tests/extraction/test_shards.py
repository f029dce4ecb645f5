"""Which shard a video is in, and the example that runs shards as a Slurm array."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tspcli.extraction import plan
from tspcli.video import VideoFile

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm-array.sh"


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(1, 9), st.randoms())
def test_shards_are_balanced_and_do_not_depend_on_the_order(
    sizes: list[int], count: int, random: object
) -> None:
    videos = [VideoFile(Path(str(size)), f"v{i}") for i, size in enumerate(sizes)]
    shuffled = list(videos)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "file_size", lambda path: int(str(path)))
        shards = [plan.select_shard(videos, (i, count)) for i in range(1, count + 1)]
        again = [plan.select_shard(shuffled, (i, count)) for i in range(1, count + 1)]
    assert again == shards
    assert sorted(v.key for shard in shards for v in shard) == sorted(v.key for v in videos)
    loads = [sum(int(str(video.path)) for video in shard) for shard in shards]
    # The emptiest shard was emptier than any other without its last, smallest video.
    for shard, load in zip(shards, loads, strict=True):
        last = min((int(str(video.path)) for video in shard), default=0)
        assert load - last <= min(loads)


def run(script_args: list[str], tmp_path: Path, **environment: str) -> tuple[int, str, list[str]]:
    """The script's exit code, what it printed, and what it called."""
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    for name in ("tsp", "sbatch"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\nfor word in {name} "$@"; do printf "%s|" "$word"; done >> {calls}\n'
            f'echo >> {calls}\n[ {name} = sbatch ] && echo 77\nexit "${{EXIT:-0}}"\n'
        )
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), *script_args],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


def test_slurm_example_submits_the_shards_and_then_their_merging(tmp_path: Path) -> None:
    out = "/data/my feats.h5"
    code, said, calls = run(
        ["/data/list.txt", out, "3", "--stride", "1"], tmp_path, SBATCH_OPTIONS="--time=1:00"
    )
    assert code == 0, said
    array, merge = (call.split("|")[:-1] for call in calls)
    assert array[0] == "sbatch" and "--array=1-3" in array and "--time=1:00" in array
    assert array[-6:] == [str(SCRIPT), "/data/list.txt", out, "3", "--stride", "1"]
    assert "--dependency=afterok:77" in merge
    command = merge[merge.index("--wrap") + 1]
    shown = subprocess.run(
        ["bash", "-c", f"set -- {command}; printf '%s\\n' \"$@\""],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown == ["tsp", "merge", "/data/my feats.shard-*-of-3.h5", "--out", out]


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (3, 0), (1, 1), (130, 130)])
def test_slurm_example_does_one_shard(tmp_path: Path, status: int, expected: int) -> None:
    code, said, calls = run(
        ["list.txt", "out dir/f.h5", "3", "--strict"],
        tmp_path, SLURM_ARRAY_TASK_ID="2", EXIT=str(status),
    )  # fmt: skip
    assert code == expected, said
    assert calls == ["tsp|extract|--videos|list.txt|--out|out dir/f.h5|--shard|2/3|--strict|"]
