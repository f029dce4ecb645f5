"""BMN (JJBOY's): a folder ``csv_mean_100`` with a table a video, resized beforehand."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tspcli.exports import bsn_dialect as bsn
from tspcli.exports.target import ExportPlan, Usage, Writer, shell
from tspcli.exports.targets.gtad_anet import (
    annotation_switches,
    warn_of_cut_names,
    warn_of_uncovered,
)
from tspcli.exports.toolkit import CsvWriter


class Bmn(bsn.BsnTarget):
    """BMN on ActivityNet. The loader resizes nothing: the rows must be 100 (``--length``)."""

    name = "bmn"
    summary = "BMN: csv_mean_100/v_ID.csv, a header and 100 rows each"
    accepts = frozenset({"length", "resize", "feature_frame", "pad_channels"})
    defaults: ClassVar = {"length": 100, "resize": "linear"}
    result_span = bsn.whole_snippets

    def check(self, plan: ExportPlan) -> None:
        warn_of_cut_names(plan)
        warn_of_uncovered(plan)

    def feature_folder(self, plan: ExportPlan) -> str:
        """The folder of the tables, as the reader composes its name."""
        return f"csv_mean_{plan.options.length}"

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        folder = main / self.feature_folder(plan)
        folder.mkdir()
        return CsvWriter(folder, plan.width)

    def usage(self, plan: ExportPlan) -> Usage:
        lines = [
            "In a checkout of BMN (the slash at the end of the path is needed):",
            f"  python main.py --mode train --feature_path {shell(plan.out, '/')} \\",
            f"    --feat_dim {plan.width} --temporal_scale {plan.options.length}"
            + annotation_switches(plan),
            "The same switches with --mode inference.",
        ]
        return Usage("\n".join(lines))
