"""BMN (JJBOY's): a folder ``csv_mean_100`` with one table per video, resized beforehand."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from tspcli.exports.bsn_dialect import ResizedTables
from tspcli.exports.export_plan import ExportPlan
from tspcli.exports.target import Usage
from tspcli.exports.toolkit import annotation_switches, shell


class BmnReader(ResizedTables):
    """BMN on ActivityNet. Its loader resizes nothing: every video needs 100 rows (``--length``)."""

    folder = "csv_mean_{}"

    def usage(self, plan: ExportPlan) -> Usage:
        lines = [
            "In a checkout of BMN (the slash at the end of the path is needed):",
            f"  python main.py --mode train --feature_path {shell(plan.out, '/')} \\",
            f"    --feat_dim {plan.width} --temporal_scale {plan.options.length}"
            + annotation_switches(plan),
            "The same switches with --mode inference.",
        ]
        return Usage("\n".join(lines))
