"""The blinded look of the design: how much seeds differ, and how many are needed; never who leads.

python -m reproduction.spread .reproduction
"""

from __future__ import annotations

from pathlib import Path

import click

from reproduction.grid import GridPlan
from reproduction.inference import seeds_needed
from reproduction.outcome import MATCHED, NONE, Outcome
from reproduction.scales import CURVE
from tspcli.cli.console import print_json
from tspcli.errors import UsageError

LOOK_AFTER, MOST, EFFECT, POWER = 6, 15, 0.06, 0.9
"""Seeds before the look, seeds at most, the lead that is to be found, and its power."""


def blinded_spread(root: Path) -> tuple[float, int]:
    """Standard deviation of the primary difference over the first seeds, and how many are needed.

    Raises:
        UsageError: If fewer seeds are complete.
    """
    (group,) = (g for g in GridPlan(CURVE, root).groups() if g.share == CURVE.control_share)
    contrast = Outcome(group).contrast(NONE, MATCHED)
    n_seeds = 0 if contrast is None else contrast.n
    if contrast is None or n_seeds < LOOK_AFTER:
        raise UsageError(f"{n_seeds} of {LOOK_AFTER} seeds are complete in {root}.", path=root)
    first = type(contrast)(contrast.differences[:LOOK_AFTER])
    least = len(CURVE.seeds)
    return first.spread, seeds_needed(EFFECT, first.spread, least=least, most=MOST, wanted=POWER)


@click.command("spread")
@click.argument("root", type=click.Path(path_type=Path))
def command(root: Path) -> None:
    """How much the primary difference varies between seeds, and how many seeds are needed.

    The mean is not computed, so that nobody who decides on the number of seeds knows it.

    \b
    Example:
      python -m reproduction.spread .reproduction
    """
    spread, n_seeds = blinded_spread(root)
    print_json({"spread_points": round(100 * spread, 2), "seeds": n_seeds})


if __name__ == "__main__":
    from tspcli.cli.main import main

    main(command=command)
