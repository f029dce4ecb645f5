"""Commands in processes that have torch imported already, so that a whole experiment is quick."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path

from reproduction.dataset import DatasetSpec
from reproduction.grid import TAC_MATCHED, TINY, TSP_MAX, TSP_NONE, Cell, Scale
from reproduction.stages import Command, Tell

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tspcli.pretraining.training_run", "tspcli.localization.training", "av"]
)

MINIATURE: Scale = replace(
    TINY,
    name="miniature",
    jobs=2,
    cells=(Cell(0.9, 3),),
    data=DatasetSpec(
        n_train=6,
        n_valid=3,
        n_unseen=2,
        n_trimmed_train=6,
        n_trimmed_valid=6,
        duration_s=(13.0, 14.0),
        action_s=(2.5, 3.0),
        gap_s=(3.0, 3.5),
        trimmed_s=2.2,
        height=36,
        width=48,
    ),
    resize=(20, 26),
    crop=(16, 16),
    trimmed={**TINY.trimmed, "epochs": 2, "milestones": "1", "clips_per_segment": 1},
    untrimmed={**TINY.untrimmed, "epochs": 2, "milestones": "1", "clips_per_segment": 1},
    bmn={"temporal_scale": 16, "max_duration": 8, "channels": 8, "epochs": 2},
    arms=(TAC_MATCHED, TSP_NONE, TSP_MAX),
)


def run_command(command: Command, stdout: Path, log: Path, tell: Tell) -> int:
    """As :func:`reproduction.stages.run_process`, without importing torch each time."""
    process = CONTEXT.Process(target=_main, args=(command, stdout, log))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _main(command: Command, stdout: Path, log: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    from reproduction import permuted
    from tspcli.cli.main import main

    if command[:2] == ("-m", "reproduction.permuted"):
        main, command = permuted.run, command[2:]
    with (
        stdout.open("w") as out,
        log.open("a") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code: object = 0
        try:
            main(list(command))
        except SystemExit as stop:
            code = stop.code
    sys.exit(code if isinstance(code, int) else 1)
