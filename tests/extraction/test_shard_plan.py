"""Which shard a video is in, and the example that runs shards as a Slurm array."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.refusals import refused
from tests.builders.videos import make_video
from tests.extraction.same import assert_same_store
from tspcli.errors import StoreError, UsageError
from tspcli.extraction import ExtractConfig, ExtractReport, extract
from tspcli.extraction import shard_plan as plan
from tspcli.extraction.shard_plan import ShardPlan
from tspcli.extraction.supervisor import Supervisor
from tspcli.extraction.task import Task
from tspcli.extraction.transports import InProcessRunner
from tspcli.store import open_store
from tspcli.store.merge import merge_stores
from tspcli.video import VideoFile

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm-array.sh"


def shards_of(videos: list[VideoFile], durations: list[int | None], count: int) -> ShardPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "file_size", lambda path: int(str(path)))
        return plan.balance(videos, durations, count)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)), max_size=60),
    st.integers(1, 9),
    st.randoms(),
)
def test_shards_are_balanced_and_do_not_depend_on_the_order(
    files: list[tuple[int, int]], count: int, random: Random
) -> None:
    videos = [VideoFile(Path(str(size)), f"v{i}") for i, (size, _) in enumerate(files)]
    duration = {video.key: ms for video, (_, ms) in zip(videos, files, strict=True)}
    shuffled = list(videos)
    random.shuffle(shuffled)
    shards, again = (
        shards_of(named, [duration[video.key] for video in named], count)
        for named in (videos, shuffled)
    )
    assert again == shards and again.digest == shards.digest
    assert sorted(v.key for shard in shards.shards for v in shard) == sorted(duration)
    loads = [sum(duration[video.key] for video in shard) for shard in shards.shards]
    # The emptiest shard was emptier than any other without its last, shortest video.
    for shard, load in zip(shards.shards, loads, strict=True):
        last = min((duration[video.key] for video in shard), default=0)
        assert load - last <= min(loads)


def test_a_video_without_a_duration_counts_by_its_size() -> None:
    # 10 bytes a millisecond: 600 bytes count for 60 ms.
    sizes = {"a": "600", "b": "900", "c": "300", "d": "600"}
    videos = [VideoFile(Path(size), key) for key, size in sizes.items()]
    shards = shards_of(videos, [None, 90, 30, 60], 2)
    assert [[video.key for video in shard] for shard in shards.shards] == [["b", "c"], ["a", "d"]]
    assert shards.n_unknown == 1
    unknown = shards_of(videos, [None] * 4, 2)
    assert [[v.key for v in shard] for shard in unknown.shards] == [["b", "c"], ["a", "d"]]


def test_missing_files_are_spread(tmp_path: Path) -> None:
    videos = [VideoFile(tmp_path / str(i), f"v{i}") for i in range(6)]
    assert [len(shard) for shard in plan.balance(videos, [None] * 6, 3).shards] == [2, 2, 2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long video of few bytes, and short ones of many."""
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "long.mp4", n_frames=240, width=64, height=48, fps=30)
    short = make_video(folder / "s0.mp4", n_frames=60, width=64, height=48, fps=30)
    # What follows the last box is passed over.
    padded = short.read_bytes() + (1 << 20).to_bytes(4, "big") + b"free" + bytes((1 << 20) - 8)
    for number in range(4):
        (folder / f"s{number}.mp4").write_bytes(padded)
    return folder


def shard(videos: list[Path], out: Path, index: int) -> ExtractReport:
    options = {"weights": "random", "backbone": "tiny", "seed": 1, "device": "cpu", "workers": 1}
    return extract(videos, out, shard=(index, 2), config=ExtractConfig(**options))  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("device", "order"),
    [("cpu,cpu", ["long", "s0", "s1", "s2", "s3"]), ("cpu", ["s0", "s1", "s2", "s3", "long"])],
    ids=["several devices: by duration", "one device: by size"],
)
def test_the_order_in_which_videos_are_begun(
    videos: Path, tmp_path: Path, device: str, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    run = (Supervisor if "," in device else InProcessRunner).run

    def noted(self: Any, task: Task, todo: list[VideoFile], *rest: Any) -> None:
        begun.extend(video.key for video in todo)
        run(self, task, todo, *rest)

    monkeypatch.setattr(Supervisor, "run", noted)
    monkeypatch.setattr(InProcessRunner, "run", noted)
    options = {"weights": "random", "backbone": "tiny", "seed": 1, "device": device, "workers": 1}
    report = extract(videos, tmp_path / "f.h5", config=ExtractConfig(**options))  # type: ignore[arg-type]  # any field
    assert not report.failed
    assert begun == order


def test_shards_last_equally_long_and_say_how_they_were_planned(
    videos: Path, tmp_path: Path
) -> None:
    named = sorted(videos.iterdir())
    out = tmp_path / "f.h5"
    reports = [shard(named, out, 1), shard(named[::-1], out, 2)]
    assert [[video.key for video in report.videos] for report in reports] == [
        ["long"], ["s0", "s1", "s2", "s3"],
    ]  # fmt: skip
    plans = set()
    for report in reports:
        with open_store(report.out) as store:
            plans.add(store.metadata.shard_plan)
        assert report.shard is not None and report.shard["plan"] in plans
    assert len(plans) == 1 and None not in plans
    config = ExtractConfig(weights="random", backbone="tiny", seed=1, device="cpu", workers=1)
    extract(named, tmp_path / "whole.h5", config=config)
    merge_stores([report.out for report in reports], out)
    assert_same_store(out, tmp_path / "whole.h5")
    with h5py.File(out) as merged, h5py.File(tmp_path / "whole.h5") as whole:
        assert dict(merged.attrs) == dict(whole.attrs)


def test_shards_of_other_videos_are_not_merged(videos: Path, tmp_path: Path) -> None:
    """The second shard was computed when a video was missing."""
    named = sorted(videos.iterdir())
    out = tmp_path / "f.h5"
    stores = [tmp_path / f"f.shard-{index}-of-2.h5" for index in (1, 2)]
    first = shard(named, out, 1)
    second = shard(named[1:], out, 2)
    missing = {path.stem for path in named} - {v.key for r in (first, second) for v in r.videos}
    doubled = {v.key for v in first.videos} & {v.key for v in second.videos}
    assert missing and not doubled
    with pytest.raises(StoreError) as caught:
        merge_stores(stores, out)
    assert all(key in str(caught.value) for key in missing)
    (text,) = merge_stores(stores, out, partial=True).differing_plans
    assert str(caught.value).startswith(text)
    # All videos again: the second shard is replanned, computes what it lacks, and they fit.
    again = shard(named, out, 2)
    assert any(str(stores[1]) in note for note in again.notes)
    merge_stores(stores, out, overwrite=True)
    with open_store(out) as store:
        assert sorted(store) == [path.stem for path in named]


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


@pytest.mark.parametrize("out", ["/data/my feats.h5", "/data/v1.0/feats", "feats", ".h5"])
def test_slurm_example_submits_the_shards_and_then_their_merging(tmp_path: Path, out: str) -> None:
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
    shards = str(plan.shard_path(Path(out), (1, 3))).replace("shard-1-of", "shard-*-of")
    assert shown == ["tsp", "merge", shards, "--out", out]


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (3, 0), (1, 1), (130, 130)])
def test_slurm_example_does_one_shard(tmp_path: Path, status: int, expected: int) -> None:
    code, said, calls = run(
        ["list.txt", "out dir/f.h5", "3", "--strict"],
        tmp_path, SLURM_ARRAY_TASK_ID="2", EXIT=str(status),
    )  # fmt: skip
    assert code == expected, said
    assert calls == ["tsp|extract|--videos|list.txt|--out|out dir/f.h5|--shard|2/3|--strict|"]


def test_the_store_of_a_shard_replaces_nothing_that_is_no_store(
    videos: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "f.shard-1-of-2.h5"
    notes.write_text("not to be lost")
    config = ExtractConfig(weights="random", backbone="tiny", shard=(1, 2), overwrite=True)
    with refused(UsageError, option="--out", path=notes):
        extract(videos, tmp_path / "f.h5", config=config)
    assert notes.read_text() == "not to be lost"
