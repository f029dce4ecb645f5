"""``reproduce``: the experiment from nothing to the report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reproduction.full import FULL, FullPlan, FullScale
from reproduction.grid import GridPlan
from reproduction.measures import MEASURES
from reproduction.pictures import require_libraries
from reproduction.processes import run_process, stop_processes
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
        verdicts: The first lines of the report, one per data set or share of scenes.
        decisions: What each of them decides: ``localizes better``, ``refuted`` or ``undecided``.
    """

    page: Path
    table: Path
    verdicts: tuple[str, ...]
    decisions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "page": str(self.page),
            "table": str(self.table),
            "verdicts": list(self.verdicts),
            "decisions": list(self.decisions),
        }


def reproduce(
    scale: str | Scale | FullScale,
    out: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    data: str | Path | None = None,
    skip_missing: bool = False,
    reporter: Reporter | None = None,
    execute: Execute = run_process,
) -> ReproductionReport:
    """Run what of an experiment is not complete yet, and write its report.

    Args:
        scale: ``tiny``, ``curve``, ``small``, ``full``, or one of your own.
        out: The experiment's folder. Given again, it resumes there.
        seeds: Of the trainings, and of rendered data sets; the scale's own if None.
        data: The folder of the real data sets, for ``full``; see ``docs/reproduction.md``.
        skip_missing: For ``full``: leave out annotated videos that are not there.
        reporter: Receives the progress, as :class:`StageRunner` says.
        execute: Runs a command; in a process of its own by default.

    Raises:
        UsageError: If the scale is unknown or the seeds make no sense.
        ReproductionError: If a stage fails, or videos, annotations or weights are missing.
        DependencyError: If matplotlib or scipy is not installed.
        StoreLockedError: If another run works in ``out``.
    """
    require_libraries()
    if isinstance(scale, str):
        scale = FULL if scale == FULL.name else find_scale(scale)
    _check_seeds(seeds)
    root = Path(out).absolute()
    plan: GridPlan | FullPlan
    if isinstance(scale, FullScale):
        if data is None:
            raise UsageError(
                "The scale full needs the real data sets.",
                remedy="Name their folder with --data; docs/reproduction.md shows its layout.",
            )
        chosen = tuple(scale.seeds if seeds is None else seeds)
        place = Path(data).absolute()
        plan = FullPlan(scale, root, chosen, place, skip_missing=skip_missing)
        plan.require_everything()
        title = "Reproduction of TSP on ActivityNet v1.3 and THUMOS14"
    else:
        scale = scale if seeds is None else replace(scale, seeds=tuple(seeds))
        plan = GridPlan(scale, root)
        title = f"Reproduction of TSP on rendered videos ({scale.name})"
    root.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(scale.threads)
    with one_writer(root / "reproduction"):
        stages, groups = plan.stages(), plan.groups()
        runner = StageRunner(
            root, stages, execute, stop=stop_processes, jobs=scale.jobs, reporter=reporter
        )

        def call(folder: Path, tell: Tell) -> None:
            explored = plan.explored() if isinstance(plan, GridPlan) else []
            records = runner.records
            write_report(folder, title, groups, scale.to_dict(), records, plan.remarks(), explored)

        runner.stages.append(
            Stage(
                REPORT,
                call=call,
                after=tuple(stage.name for stage in stages if MEASURES in stage.outputs),
                outputs=(PAGE, TABLE, SUMMARY),
                settings={"scale": json.loads(json.dumps(scale.to_dict())), "code": _code_digest()},
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
        tuple(summary["decisions"]),
    )


def _check_seeds(seeds: Sequence[int] | None) -> None:
    """Refuse here what the localizer would only refuse after the trainings.

    Raises:
        UsageError: If there is no seed, one occurs twice, or one is out of range.
    """
    if seeds is None:
        return
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(
            f"--seeds must name at least one seed, and each once: {list(seeds)}.",
            remedy="Give, for example, --seeds 0,1,2.",
            option="--seeds",
            value=tuple(seeds),
        )
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(
                f"--seeds must be between 0 and {MAX_SEED}: {seed}.", option="--seeds", value=seed
            )


def _code_digest() -> str:
    """Of the modules that write the report: it costs little, so that it follows their changes."""
    folder = Path(__file__).parent
    modules = ("report", "pictures", "outcome", "inference", "predictions", "explore")
    return "".join(digest_of(folder / f"{name}.py")[:12] for name in modules)
