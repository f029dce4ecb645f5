"""Several processes train as one with their joint batch (on CPUs, over gloo)."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from tests.builders.gpus import Gpus
from tests.builders.refusals import refused
from tests.pretraining import processes
from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tests.pretraining.test_resume import assert_same, final, train_and_die
from tspcli.annotations import read_groundtruth
from tspcli.annotations.training_tables import write_groundtruth
from tspcli.cli.main import main
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining import pretrain
from tspcli.pretraining.distributed import (
    Devices,
    Placement,
    find_placement,
    first_slurm_host,
    launch,
    rendezvous,
)
from tspcli.pretraining.run_state import read_run_recipe

FROZEN = replace(FAST, batch_norm="frozen", batch_size=6)
"""One process; the learning rates are those that two processes get from being two."""
HALVES = replace(
    FROZEN,
    batch_size=3,
    stem_lr=FAST.stem_lr / 2,
    backbone_lr=FAST.backbone_lr / 2,
    head_lr=FAST.head_lr / 2,
)


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def parameters(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "last.pth", weights_only=False)["model"]


@pytest.fixture(scope="module")
def alone(small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    assert processes.run(pretrain, **small_set.arguments(out=out, recipe=FROZEN)) == 0
    return out


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_two_processes_equal_one_with_the_same_global_batch(
    small_set: SmallSet, alone: Path, tmp_path: Path, launcher: str
) -> None:
    out = tmp_path / "run"
    arguments = small_set.arguments(out=out, recipe=HALVES)
    codes = processes.run_together(2, pretrain, slurm=launcher == "slurm", **arguments)
    assert codes == [0, 0]
    expected = parameters(alone)
    for name, value in parameters(out).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    for one, other in zip(results(out), results(alone), strict=True):
        for split in ("train", "valid"):
            assert one[split] == pytest.approx(other[split], rel=1e-3)
    moved = torch.load(out / "last.pth", weights_only=False)["optimizer"]["param_groups"]
    assert moved[2]["name"] == "fc"


def test_three_processes_with_accumulation_and_cache(
    small_set: SmallSet, alone: Path, tmp_path: Path
) -> None:
    third = replace(FROZEN, batch_size=2, stem_lr=1e-3 / 3, backbone_lr=2e-3 / 3, head_lr=1e-2 / 3)
    execution = replace(QUIET, accumulate=2, cache=str(tmp_path / "cache"), cache_codec="raw")
    out = tmp_path / "run"
    arguments = small_set.arguments(out=out, recipe=third, execution=execution)
    assert processes.run_together(3, pretrain, **arguments) == [0, 0, 0]
    expected = parameters(alone)
    for name, value in parameters(out).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_devices_without_foreground_or_without_clips(
    small_set: SmallSet, tmp_path: Path, world_size: int
) -> None:
    """Mostly background, one clip a device: most batches of a device have no foreground, some steps
    have none at all, and in the last step some devices have no clip.
    """
    rows = read_groundtruth(small_set.train)
    actions = [row for row in rows if row.label is not None][:1]
    background = [row for row in rows if row.label is None][:4]
    table = tmp_path / "train.csv"
    write_groundtruth(table, [*actions, *background])
    recipe = replace(FAST, batch_size=1, clips_per_segment=1, epochs=2)
    out = tmp_path / "run"
    arguments = small_set.arguments(out=out, recipe=recipe, train=table)
    assert processes.run_together(world_size, pretrain, **arguments) == [0] * world_size
    assert all(value.isfinite().all() for value in parameters(out).values())
    for result in results(out):
        assert 0 < result["train"]["action_loss"] < 20
        assert 0 < result["train"]["region_loss"] < 20


@pytest.mark.parametrize("world_size", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_validation_counts_every_clip_once(
    small_set: SmallSet, alone: Path, tmp_path: Path, world_size: int
) -> None:
    """With learning rates of zero all runs have one model, and have to find the same figures."""
    still = {"stem_lr": 0.0, "backbone_lr": 0.0, "head_lr": 0.0, "epochs": 1}
    expected, out = tmp_path / "one", tmp_path / "many"
    recipe = replace(FROZEN, **still)
    assert processes.run(pretrain, **small_set.arguments(out=expected, recipe=recipe)) == 0
    arguments = small_set.arguments(out=out, recipe=replace(recipe, batch_size=4))
    assert processes.run_together(world_size, pretrain, **arguments) == [0] * world_size
    one, many = results(expected)[0]["valid"], results(out)[0]["valid"]
    assert one == pytest.approx(many, rel=1e-5)
    rows = read_groundtruth(small_set.valid)
    assert (one["region_accuracy"] * len(rows) * 2) == pytest.approx(
        round(one["region_accuracy"] * len(rows) * 2), abs=1e-6
    )


@pytest.mark.faults
def test_two_processes_killed_and_resumed(small_set: SmallSet, tmp_path: Path) -> None:
    execution = replace(QUIET, checkpoint_every_steps=1)
    recipe = replace(FAST, batch_size=3)  # batch norms move, differently on each device
    whole, out = tmp_path / "whole", tmp_path / "run"
    common = {"recipe": recipe, "execution": execution}
    assert processes.run_together(2, pretrain, **small_set.arguments(out=whole, **common)) == [0, 0]
    arguments = small_set.arguments(out=out, **common)
    codes = processes.run_together(2, train_and_die, arguments, "step 1.2")
    assert codes[0] == -signal.SIGKILL
    assert codes[1] not in (0, None)  # its partner is gone: it ends, and does not hang
    with pytest.raises(TrainingError, match="started on 2 devices, not 1"):
        pretrain(**arguments, resume=True)
    assert processes.run_together(2, pretrain, **arguments, resume=True) == [0, 0]
    assert_same(final(out), final(whole))


def test_what_the_first_process_refuses_all_do(small_set: SmallSet, alone: Path) -> None:
    arguments = small_set.arguments(out=alone, recipe=HALVES)
    assert processes.run_together(2, expect_refusal, arguments) == [0, 0]


def expect_refusal(arguments: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="already holds a run") as raised:
        pretrain(**arguments)
    assert "--resume" in str(raised.value)
    assert raised.value.reported_elsewhere == (os.environ["RANK"] != "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recipe", "nonsense"), "nonsense"),  # wrong usage, found before they meet
        (("--backbone", "unheard-of"), "unheard-of"),
        (("--heads", "elbow"), "elbow"),  # found by click
        (("--train", "gone.csv"), "gone.csv"),
    ],
)
def test_what_is_wrong_in_all_processes_is_said_once(
    small_set: SmallSet, tmp_path: Path, arguments: tuple[str, str], said: str
) -> None:
    given = {"--videos": small_set.videos, "--train": small_set.train, "--valid": small_set.valid}
    words = [str(word) for pair in given.items() for word in pair]
    words += ["--out", str(tmp_path / "run"), "--device", "cpu", *arguments]
    codes = processes.run_together(2, tell_into, tmp_path, ["pretrain", *words])
    assert codes[0] == codes[1] and codes[0] in (1, 2)
    assert said in (tmp_path / "0.txt").read_text()
    assert (tmp_path / "1.txt").read_text() == ""


def tell_into(folder: Path, words: list[str]) -> None:
    """The command line, as in a process of torchrun, its stderr in a file."""
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    with open(folder / f"{os.environ['RANK']}.txt", "w") as file:
        os.dup2(file.fileno(), 2)
        main(words)


def test_what_is_wrong_in_one_process_each_tells_for_itself() -> None:
    assert processes.run_together(3, fail_apart) == [0, 0, 0]


def fall_ill(devices: Devices) -> None:
    with devices.failing_together():
        if devices.rank:
            raise TrainingError(f"process {devices.rank} is unwell")


def fail_apart() -> None:
    """The last two have a trouble each; the first has none, and ends with that of the second."""
    with Devices(find_placement(os.environ), "cpu") as devices:
        rank = devices.rank
        with pytest.raises(TrainingError) as raised:
            fall_ill(devices)
        assert str(raised.value) == f"process {max(rank, 1)} is unwell"
        assert raised.value.reported_elsewhere == (rank == 0)


def test_sync_batch_norm_needs_cuda(small_set: SmallSet, tmp_path: Path) -> None:
    recipe = replace(FAST, batch_norm="sync", epochs=1)
    arguments = small_set.arguments(out=tmp_path / "run", recipe=recipe)
    assert processes.run_together(2, expect_usage_error, arguments) == [0, 0]
    pretrain(**arguments, resume=True)  # alone, there is nothing to synchronise


def expect_usage_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs CUDA"):
        pretrain(**arguments)


# --- finding each other ---------------------------------------------------------------------------


def test_placements() -> None:
    assert find_placement({}) == Placement()
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert find_placement(torchrun) == Placement(5, 8, 1, 4, "torchrun")
    slurm = {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    }
    assert find_placement(slurm) == Placement(5, 8, 1, 4, "slurm")
    # In a batch script's own shell, without srun, there is one process.
    assert find_placement({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Placement()
    assert find_placement({**slurm, "SLURM_STEP_NUM_TASKS": "1"}) == Placement()
    with pytest.raises(TrainingError):
        find_placement({"RANK": "x", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("launcher", "visible", "index"),
    [
        ("slurm", 1, 0),  # --gpus-per-task 1
        ("slurm", 2, 0),  # --gpus-per-task 2
        ("slurm", 8, 3),  # --gpus-per-node 8
        ("torchrun", 8, 3),
        ("torchrun", 1, None),
        ("slurm", 0, None),
    ],
)
def test_cuda_device_of_a_process(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, launcher: str, visible: int, index: int | None
) -> None:
    gpus(*[(9, 0)] * visible)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda device: None)
    placement = Placement(3, 8, 3, 8, launcher)
    if index is None:
        with refused(TrainingError, value=3):
            Devices(placement, "cuda")
    else:
        assert Devices(placement, "cuda").device.index == index
        assert Devices(placement, "auto").device.index == index
    if not visible:
        assert Devices(placement, "auto").device.type == "cpu"


def test_several_processes_on_gpus_that_torch_has_no_code_for(gpus: Gpus) -> None:
    """As in one process: named they are refused, and ``auto`` leaves them."""
    gpus((7, 0), (7, 0))
    placement = Placement(1, 2, 1, 2, "torchrun")
    with refused(UsageError, option="device", value="cuda"):
        Devices(placement, "cuda")
    with pytest.warns(UserWarning, match="Pretended 1"):
        assert Devices(placement, "auto").device.type == "cpu"


def test_several_processes_on_other_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    found = torch.device("xpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    assert Devices(Placement(1, 2, 1, 2), "xpu").device == torch.device("xpu", 1)
    assert chosen == [torch.device("xpu", 1)]
    with refused(TrainingError, value=2):
        Devices(Placement(2, 3, 2, 3), "xpu")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu[03-05,9]", "gpu03"),
        ("a-b[1,7],c2", "a-b1"),
        ("login,gpu[1-2]", "login"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_slurm_host(nodes) == first
    met = rendezvous({"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "123"})
    assert met["MASTER_ADDR"] == first
    assert 1024 < int(met["MASTER_PORT"]) < 65536
    own = {"MASTER_ADDR": "elsewhere", "MASTER_PORT": "7"}
    assert rendezvous({**own, "SLURM_STEP_NODELIST": nodes}) == own


def test_recipe_of_a_run_can_be_read(alone: Path) -> None:
    assert read_run_recipe(alone) == FROZEN


FAILED = {"local_rank": 0, "pid": 7, "error_file": "<NONE>"}


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (None, 0),
        (SignalException("stopped", signal.SIGTERM), 143),
        (SignalException("stopped", signal.SIGINT), 130),
        (ChildFailedError("tspcli", {0: ProcessFailure(**FAILED, exitcode=2)}), 2),
        (ChildFailedError("tspcli", {0: ProcessFailure(**FAILED, exitcode=-9)}), 137),
    ],
)
def test_torchs_launcher_is_used_and_its_end_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, raised: Exception | None, code: int
) -> None:
    calls: list[list[str]] = []

    def run(arguments: list[str]) -> None:
        calls.append(arguments)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if raised is not None:
            raise raised

    monkeypatch.setattr("torch.distributed.run.main", run)
    before = signal.getsignal(signal.SIGTERM)
    assert launch(4, ["pretrain", "--out", "run"]) == code
    assert signal.getsignal(signal.SIGTERM) == before
    words = ["--standalone", "--nproc-per-node=4", "-m", "tspcli", "pretrain", "--out", "run"]
    assert calls == [words]
