"""What an export prints and writes about its use: nothing is named that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.exports.conftest import ANET, THUMOS, Export, anet_json, make_store
from tspcli.exports import TARGETS
from tspcli.sampling import Sampling

ON_THUMOS14 = ("gtad-thumos", "segmentation")
"""Targets whose readers cannot take the names of our ActivityNet videos."""


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_explains_its_use(
    anet_store: Path, thumos_store: Path, export: Export, tmp_path: Path, target: str
) -> None:
    store = thumos_store if target in ON_THUMOS14 else anet_store
    report = export(store, target, tmp_path / "out")
    page = (tmp_path / "out" / "HOW_TO_USE.txt").read_text()
    assert report.usage in page and "Time (" in page
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert manifest["target"] == target
    assert manifest["n_videos"] == len(THUMOS if target in ON_THUMOS14 else ANET)
    assert manifest["time_errors"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # nothing aside is left


@pytest.mark.parametrize("told", ["nothing", "all", "no subset", "train alone"])
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_is_named_was_written(
    anet_store: Path,
    thumos_store: Path,
    anet_annotations: Path,
    thumos_annotations: list[Path],
    export: Export,
    tmp_path: Path,
    target: str,
    told: str,
) -> None:
    store, annotations = anet_store, [anet_annotations]
    if target in ON_THUMOS14:
        store, annotations = thumos_store, thumos_annotations
    if told == "nothing":
        annotations = []
    elif told != "all":
        if target in (*ON_THUMOS14, "actionformer", "opentad", "online"):
            annotations = annotations[:1]
        else:
            metadata = tmp_path / "groundtruth.csv"
            lines = "".join(
                f"{c.key}.mp4,{c.key[2:]},0.1,0.9,Archery,Action,{c.duration_s},30,99\n"
                for c in ANET[:3]
            )
            metadata.write_text(
                "filename,video-name,t-start,t-end,action-label,temporal-region-label,"
                "video-duration,fps,video-frames\n" + lines
            )
            annotations = [metadata]
    subset = "training" if told == "train alone" else None
    missing = "skip" if annotations else None
    report = export(store, target, tmp_path / "out", annotations, subset=subset, missing=missing)
    written = [
        p for p in (tmp_path / "out").iterdir() if p.suffix in (".txt", ".yml", ".yaml", ".py")
    ]
    texts = [report.usage, *(path.read_text() for path in written)]
    named = {n for text in texts for n in re.findall(rf"{tmp_path}/out[\w./-]*\*?", text)}
    assert named or target in ("npy", "official", "segmentation")
    for name in named:
        assert Path(name).exists() or name.endswith("saved.*"), name
    if told == "nothing" and target in ("bmn", "gtad-anet", "mmaction2", "opentad"):
        assert "PATH/TO" in report.usage and "files of your own" in report.usage


@pytest.mark.parametrize("target", ["bmn", "actionformer", "official"])
def test_a_forgotten_subset_is_noted(
    anet_store: Path, export: Export, tmp_path: Path, target: str
) -> None:
    train = make_store(tmp_path / "train.h5", ANET[::2], Sampling())
    annotations = anet_json(tmp_path / "all.json", ANET)
    report = export(train, target, tmp_path / "half", [annotations], missing="skip")
    told = [note for note in report.notes if note.startswith("No validation video is exported")]
    assert len(told) == (target != "official")
    report = export(anet_store, target, tmp_path / "whole", [annotations], missing="skip")
    assert not any("video is exported" in note for note in report.notes)


def test_videos_without_annotation_are_noted(
    anet_store: Path, export: Export, tmp_path: Path
) -> None:
    some = anet_json(tmp_path / "some.json", ANET[:3])
    report = export(anet_store, "bmn", tmp_path / "out", [some])
    assert report.unannotated == len(ANET) - 3
    assert any(f"{len(ANET) - 3} exported videos" in note for note in report.notes)
