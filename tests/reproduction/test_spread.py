"""The blinded look: a spread and a number of seeds, and nothing that shows who leads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from reproduction.measures import MEASURES
from reproduction.spread import LOOK_AFTER, MOST, blinded_spread, command
from tspcli.errors import UsageError

pytest.importorskip("scipy")


def write(root: Path, leads: list[float]) -> None:
    for number, lead in enumerate(leads):
        for arm, value in (("tac-matched", 0.5), ("tsp-none", 0.5 + lead)):
            folder = root / f"p0.9/seed{10 + number}/{arm}.localized"
            folder.mkdir(parents=True)
            (folder / MEASURES).write_text(json.dumps({"map": value}))


def test_the_look_is_the_same_whoever_leads(tmp_path: Path) -> None:
    leads = [0.1, 0.02, 0.04, 0.12, 0.0, 0.08]
    said = []
    for name, shift in (("ahead", 0.0), ("behind", -0.3)):
        write(tmp_path / name, [lead + shift for lead in leads])
        said.append(CliRunner().invoke(command, [str(tmp_path / name)]).output)
    assert said[0] == said[1]
    assert json.loads(said[0])["spread_points"] == pytest.approx(
        100 * np.std(leads, ddof=1), abs=0.01
    )


def test_later_seeds_change_nothing(tmp_path: Path) -> None:
    write(tmp_path, [0.1, 0.02, 0.04, 0.12, 0.0, 0.08, -0.4, 0.4])
    assert blinded_spread(tmp_path)[0] == pytest.approx(
        np.std([0.1, 0.02, 0.04, 0.12, 0.0, 0.08], ddof=1)
    )


@pytest.mark.parametrize(("size", "expected"), [(0.001, 9), (0.2, MOST)])
def test_the_number_of_seeds_stays_in_its_bounds(
    size: float, expected: int, tmp_path: Path
) -> None:
    write(tmp_path, [size * n for n in range(LOOK_AFTER)])
    assert blinded_spread(tmp_path)[1] == expected


def test_too_few_seeds_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [0.1] * 5)
    with pytest.raises(UsageError) as refused:
        blinded_spread(tmp_path)
    assert refused.value.data["path"] == tmp_path
