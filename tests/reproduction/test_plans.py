"""The plans of all scales: their commands are ones that the program takes, and their stages fit."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest

from reproduction.full import FULL, FullPlan
from reproduction.grid import GridPlan
from reproduction.run import reproduce
from reproduction.scales import SCALES
from reproduction.stages import Command, Stage
from tspcli.cli.main import COMMANDS
from tspcli.errors import UsageError
from tspcli.pretraining.training_recipe import load_recipe


def plans(root: Path) -> dict[str, list[Stage]]:
    found = {name: GridPlan(scale, root).stages() for name, scale in SCALES.items()}
    for item in FULL.datasets:
        (root / item.name / "videos").mkdir(parents=True)
        (root / item.name / item.annotations).touch()
    found["full"] = FullPlan(FULL, root, (0, 1), root).stages()
    return found


def parse(command: Command) -> None:
    if command[:2] == ("-m", "reproduction.permuted"):
        command = command[2:]
    target: click.Command = importlib.import_module(COMMANDS[command[0]].module).command
    words = list(command[1:])
    context = click.Context(target, info_name=command[0])
    while isinstance(target, click.Group):
        inner = target.get_command(context, words.pop(0))
        assert inner is not None
        target = inner
    target.make_context(command[0], words)


def make_what_is_named(command: Command, root: Path) -> None:
    """Some options want files that exist."""
    for word in command:
        path = Path(word.split("=")[-1])
        if root in path.parents and not path.exists():
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True)


@pytest.mark.parametrize("scale", [*SCALES, "full"])
def test_every_command_line_is_one_that_the_program_takes(scale: str, tmp_path: Path) -> None:
    commands = [c for stage in plans(tmp_path)[scale] for c in stage.commands]
    assert len(commands) > 20
    for command in commands:
        make_what_is_named(command, tmp_path)
        parse(command)


@pytest.mark.parametrize("scale", [*SCALES, "full"])
def test_stages_come_after_what_they_read(scale: str, tmp_path: Path) -> None:
    met: set[str] = set()
    for stage in plans(tmp_path)[scale]:
        assert stage.name not in met
        assert set(stage.after) <= met
        met.add(stage.name)


def test_the_gvf_is_the_one_that_the_arm_names(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in plans(tmp_path)["tiny"]}
    words = stages["p0.9/seed10/tsp-max"].commands[0]
    assert words[words.index("--gvf-pool") + 1] == "max"
    assert words[words.index("--gvf") + 1].endswith("/gvf/max.h5")
    assert "p0.9/seed10/gvf" in stages["p0.9/seed10/tsp-max"].after


def test_arms_are_what_the_recipes_allow() -> None:
    for arm in FULL.arms:
        values: dict[str, object] = {"clip_length": arm.clip_length, **arm.settings}
        if arm.heads:
            values["heads"] = list(arm.heads)
        if arm.recipe == "tsp":
            values["gvf_pool"] = arm.gvf
        for suffix in ("activitynet", "thumos14"):
            recipe = load_recipe(f"{arm.recipe}-{suffix}", values)
            assert recipe.foreground_only == (arm.name == "tac")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_one_of_the_stages_refuses_are_refused_at_once(
    seed: int, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError) as refused:
        reproduce("tiny", tmp_path / "out", seeds=(0, seed))
    assert refused.value.data == {"option": "--seeds", "value": seed}
    assert not (tmp_path / "out").exists()
