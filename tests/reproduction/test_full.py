"""The scale ``full`` on a miniature folder with the layout and the file names of the data sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reproduction.dataset import activitynet_json, plan_untrimmed
from reproduction.full import ACTIVITYNET, FULL, THUMOS14, FullPlan
from reproduction.run import reproduce
from reproduction.stages import ReproductionError
from reproduction.synthetic import SyntheticVideo, render_video
from tests.reproduction.running import MINIATURE
from tspcli.encoders import TspModel, save_checkpoint
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import UsageError
from tspcli.sampling.pixels import ResizeSpec

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    spec = replace(MINIATURE.data, n_train=4, n_valid=2)
    plans = plan_untrimmed(spec)
    write_activitynet(folder / "activitynet", plans)
    write_thumos14(folder / "thumos14", plans)
    return folder


def write_activitynet(folder: Path, plans: dict[str, list[SyntheticVideo]]) -> None:
    named = {
        split: [replace(v, name=f"v_{split[:2]}{i}-x_y{i:06d}"[:13]) for i, v in enumerate(videos)]
        for split, videos in plans.items()
    }
    for split, videos in named.items():
        (folder / "videos" / split).mkdir(parents=True)
        for video in videos:
            render_video(video, folder / "videos" / split / f"{video.name}.mp4")
    content = activitynet_json(named)
    # The released file also has test videos without annotations.
    content["database"]["test0000001"] = {"subset": "testing", "duration": 9.0, "annotations": []}
    (folder / ACTIVITYNET.annotations).write_text(json.dumps(content))


def write_thumos14(folder: Path, plans: dict[str, list[SyntheticVideo]]) -> None:
    (folder / "annotation").mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    for split, (place, word, tag) in {
        "train": ("valid", "validation", "val"),
        "valid": ("test", "test", "test"),
    }.items():
        (folder / "videos" / place).mkdir(parents=True)
        for number, video in enumerate(plans[split]):
            name = f"video_{word}_{51 + number:07d}"
            render_video(video, folder / "videos" / place / f"{name}.mp4")
            for action in video.actions:
                row = f"{name}  {action.start_s} {action.end_s}"
                lines.setdefault(f"{action.label}_{tag}.txt", []).append(row)
    for name, rows in lines.items():
        (folder / "annotation" / name).write_text("\n".join(rows) + "\n")
    (folder / "annotation" / "Ambiguous_val.txt").write_text("video_validation_0000051 1 2\n")


def checkpoint(path: Path, backbone: str = "tiny") -> Path:
    torch.manual_seed(0)
    small = Preprocessing(resize=ResizeSpec(height=20, width=26), crop=(16, 16))
    save_checkpoint(path, TspModel(backbone), backbone=backbone, preprocessing=small)
    return path


def test_what_is_missing_is_named_before_anything_starts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "no-weights"))
    lost = tmp_path / "data"
    write_activitynet(lost / "activitynet", plan_untrimmed(MINIATURE.data))
    video = sorted((lost / "activitynet" / "videos" / "valid").iterdir())[0]
    video.unlink()
    out = tmp_path / "out"
    with pytest.raises(ReproductionError, match="2 weights, 1 files or folders and 1 annotated"):
        reproduce("full", out, data=lost)
    listed = (out / "missing.txt").read_text().splitlines()
    assert listed[:2] == ["r2plus1d_34-ig65m_kinetics400", "r2plus1d_34-tac_on_kinetics"]
    assert listed[2].endswith("thumos14/annotation")
    assert listed[3].endswith(f"valid/{video.stem.removeprefix('v_')}")
    assert sorted(path.name for path in out.iterdir()) == ["missing.txt"]


def test_missing_videos_can_be_left_out_and_the_report_says_so(data: Path, tmp_path: Path) -> None:
    lost = tmp_path / "activitynet"
    write_activitynet(lost, plan_untrimmed(MINIATURE.data))
    sorted((lost / "videos" / "train").iterdir())[0].unlink()
    weights = str(checkpoint(tmp_path / "w.pth"))
    scale = replace(FULL, init=weights, gvf_weights=weights, datasets=(ACTIVITYNET,))
    plan = FullPlan(scale, tmp_path / "out", (0,), tmp_path, skip_missing=True)
    plan.require_everything()
    assert any("1 annotated videos are not there" in remark for remark in plan.remarks())


def test_full_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the real data sets"):
        reproduce("full", tmp_path)


def test_the_recipes_are_the_official_ones(tmp_path: Path) -> None:
    """No command replaces a value of the recipes, but for seed and clip length."""
    plan = FullPlan(FULL, tmp_path / "out", (0,), tmp_path)
    trainings = [
        command
        for item in FULL.datasets
        for stage in plan._chain(item, 0).stages(FULL.arms)
        for command in stage.commands
        if command[0] == "pretrain"
    ]
    assert len(trainings) == 2 * len(FULL.arms)
    for command in trainings:
        assert command[command.index("--recipe") + 1][4:] in ("activitynet", "thumos14")
        assert {
            word for word in command if word.endswith(("-lr", "epochs", "--batch-size"))
        } == set()


def test_every_step_on_a_miniature(data: Path, tmp_path: Path) -> None:
    weights = str(checkpoint(tmp_path / "stand_in.pth"))
    bmn = {"channels": 8, "epochs": 1, "temporal_scale": 16, "max_duration": 8}
    anet = replace(ACTIVITYNET, bmn={**ACTIVITYNET.bmn, **bmn})
    thumos = replace(THUMOS14, stride_frames=4, bmn={**THUMOS14.bmn, **bmn, "window_s": 8})
    scale = replace(
        FULL,
        backbone="tiny",
        init=weights,
        gvf_weights=weights,
        device="cpu",
        jobs=2,
        threads=1,
        datasets=(anet, thumos),
        settings={"epochs": 1, "milestones": "", "warmup_epochs": 0, "clips_per_segment": 1},
        pretrain_options=("--resize", "20,26", "--crop", "16,16", "--workers", "0"),
        extract_workers=1,
        arms=tuple(a for a in FULL.arms if a.name in ("tac-matched", "tsp-none", "tsp-max")),
    )
    report = reproduce(scale, tmp_path / "out", seeds=(0,), data=data)
    assert len(report.verdicts) == 2
    text = report.table.read_text()
    assert "## ActivityNet v1.3" in text and "## THUMOS14" in text
    assert "| TSP, max GVF, published |  | 35.8 | 51.3 | 37.1 | 9.3 |" in text
    assert "not re-measured" in text
    assert "mAP@0.3" in text.split("## THUMOS14")[1]
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    for title in ("ActivityNet v1.3", "THUMOS14"):
        assert set(summary["figures"][title]) == {"trimmed", "tac-matched", "tsp-none", "tsp-max"}
    assert "map_0.30" in summary["figures"]["THUMOS14"]["tsp-none"]["0"]
