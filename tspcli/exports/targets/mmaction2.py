"""MMAction2's localizers (BMN, BSN): BMN's tables, annotations of its own."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from pathlib import Path

from tspcli.annotations.write import write_json
from tspcli.core.text import counted
from tspcli.exports import bsn_dialect as bsn
from tspcli.exports.export_plan import ExportPlan
from tspcli.exports.target import Usage

_FILES = {"training": "train", "validation": "val", "testing": "test", None: "full"}


class MMAction2(bsn.ResizedTables):
    """MMAction2's ``ActivityNetDataset`` with ``LoadLocalizationFeature``."""

    folder = "csv"

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        splits: dict[str, dict[str, object]] = {}
        for video in bsn.trainable(plan):
            assert video.annotated is not None
            span = self.span(video, plan.options)
            split = _FILES[video.annotated.subset]
            splits.setdefault(split, {})[video.annotation_name] = bsn.entry(video, span)
        if not plan.has_entries(splits):
            return []
        paths = []
        for split, entries in sorted(splits.items()):
            paths.append(folder / f"anet_anno_{split}.json")
            write_json(paths[-1], entries)
        if "full" in splits:
            plan.notes.append(
                f"The annotations give no subset for {counted(len(splits['full']), 'video')}; "
                "anet_anno_full.json holds them."
            )
        return paths

    def usage(self, plan: ExportPlan) -> Usage:
        config = (
            "# Over configs/localization/bmn/bmn_2xb8-400x100-9e_activitynet-feature.py\n"
            f"data_root = {str(plan.out / 'csv') + '/'!r}\n"
            "data_root_val = data_root\n"
            f"ann_file_train = {str(plan.annotation_file('anet_anno_train.json'))!r}\n"
            f"ann_file_val = {str(plan.annotation_file('anet_anno_val.json'))!r}\n"
            "ann_file_test = ann_file_val\n"
            f"model = dict(feat_dim={plan.width}, temporal_dim={plan.options.length})\n"
            "train_dataloader = dict(dataset=dict(ann_file=ann_file_train, "
            "data_prefix=dict(video=data_root)))\n"
            "val_dataloader = dict(dataset=dict(ann_file=ann_file_val, "
            "data_prefix=dict(video=data_root_val)))\n"
            "test_dataloader = dict(dataset=dict(ann_file=ann_file_test, "
            "data_prefix=dict(video=data_root_val)))\n"
            "test_evaluator = dict(type='ANetMetric', metric_type='AR@AN', "
            "dump_config=dict(out='results.json', output_format='json'))\n"
            "val_evaluator = test_evaluator\n"
        )
        lines = [
            "A configuration that inherits one of MMAction2's needs (mmaction2_tsp.py, after a "
            "`_base_ = [...]` line):",
            f"  feat_dim={plan.width}, temporal_dim={plan.options.length}, "
            f"data_prefix=dict(video='{plan.out / 'csv'}')",
            "The csv folder serves BMN (JJBOY's) as well.",
        ]
        return Usage("\n".join(lines), {"mmaction2_tsp.py": config})
