"""``reproduce``: the experiment from nothing to the report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.experiment import ExperimentPlan
from reproduction.full import FULL, FullPlan, FullScale
from reproduction.measures import MEASURES
from reproduction.outcome import Group
from reproduction.pictures import require_matplotlib
from reproduction.report import PAGE, SUMMARY, TABLE, write_report
from reproduction.scales import Scale, find_scale
from reproduction.stages import Execute, Stage, StageRunner, Tell, digest_of
from tspcli.core.progress import Reporter
from tspcli.core.run_dir import one_writer
from tspcli.errors import UsageError
from tspcli.localization.localize_config import MAX_SEED

REPORT = "report"


@dataclass(frozen=True)
class ReproductionReport:
    """What an experiment left.

    Attributes:
        page: The report as one HTML page.
        table: The same tables as Markdown.
        verdicts: The first lines of the report, one a data set.
        confirmed: Whether the order of the paper, TSP above TAC, came out in all of them by more
            than the seeds differ, which one seed cannot tell.
    """

    page: Path
    table: Path
    verdicts: tuple[str, ...]
    confirmed: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "page": str(self.page),
            "table": str(self.table),
            "verdicts": list(self.verdicts),
            "confirmed": self.confirmed,
        }


def reproduce(
    scale: str | Scale | FullScale,
    out: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    data: str | Path | None = None,
    skip_missing: bool = False,
    reporter: Reporter | None = None,
    execute: Execute | None = None,
) -> ReproductionReport:
    """Run what of an experiment is not done yet, and write its report.

    Args:
        scale: ``tiny``, ``small``, ``full``, or one of your own.
        out: The experiment's folder. Given again, it goes on there.
        seeds: Of the trainings; the scale's own if None.
        data: The folder of the real data sets, for ``full``; see ``docs/reproduction.md``.
        skip_missing: For ``full``: go on without annotated videos that are not there.
        reporter: Receives the progress, as :class:`StageRunner` says.
        execute: Runs a command; a process of its own by default.

    Raises:
        UsageError: If the scale is unknown or the seeds make no sense.
        ReproductionError: If a stage fails, or videos, annotations or weights are missing.
        DependencyError: If matplotlib is not installed.
        StoreLockedError: If another run works in ``out``.
    """
    require_matplotlib()
    if isinstance(scale, str):
        scale = FULL if scale == FULL.name else find_scale(scale)
    chosen = tuple(scale.seeds if seeds is None else seeds)
    if not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(f"The seeds {chosen} are none, or one occurs twice.", remedy="Give 0,1,2.")
    for seed in chosen:
        # Otherwise the localizer would be the first to say so, after the trainings.
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"The seed {seed} is none.", remedy=f"Give 0 to {MAX_SEED}.")
    root = Path(out).absolute()
    plan: ExperimentPlan | FullPlan
    if isinstance(scale, FullScale):
        if data is None:
            raise UsageError(
                "The scale full needs the real data sets.",
                remedy="Name their folder with --data; docs/reproduction.md tells its layout.",
            )
        place = Path(data).absolute()
        plan = FullPlan(scale, root, chosen, place, skip_missing=skip_missing)
        plan.require_everything()
        title = "Reproduction of TSP on ActivityNet v1.3 and THUMOS14"
    else:
        plan = ExperimentPlan(scale, root, chosen)
        title = f"Reproduction of TSP on rendered videos ({scale.name})"
    root.mkdir(parents=True, exist_ok=True)
    if execute is None:
        os.environ["OMP_NUM_THREADS"] = str(scale.threads)
    with one_writer(root / "reproduction"):
        stages = plan.stages()
        runner = StageRunner(root, stages, jobs=scale.jobs, reporter=reporter, execute=execute)
        call = _report_call(title, plan.groups(), scale.to_dict(), plan.remarks(), runner)
        measures = tuple(stage.name for stage in stages if MEASURES in stage.outputs)
        runner.stages.append(
            Stage(
                REPORT,
                call=call,
                after=measures,
                outputs=(PAGE, TABLE, SUMMARY),
                settings={"seeds": list(chosen), "code": report_code_digest()},
                cost=8,
                about="report",
            )
        )
        runner.run()
    summary = json.loads((root / REPORT / SUMMARY).read_text(encoding="utf-8"))
    return ReproductionReport(
        root / REPORT / PAGE,
        root / REPORT / TABLE,
        tuple(summary["verdicts"]),
        all(summary["confirmed"]),
    )


def _report_call(
    title: str,
    groups: Sequence[Group],
    settings: Mapping[str, Any],
    remarks: Sequence[str],
    runner: StageRunner,
) -> Callable[[Path, Tell], None]:
    def call(folder: Path, tell: Tell) -> None:
        write_report(folder, title, groups, settings, runner.records, remarks)

    return call


def report_code_digest() -> str:
    """Of the modules that write the report: it costs little, so that it follows their changes."""
    folder = Path(__file__).parent
    return "".join(
        digest_of(folder / f"{name}.py")[:12] for name in ("report", "pictures", "outcome")
    )
