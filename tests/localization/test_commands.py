from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.videos import make_video
from tests.localization.planted import LABELS, plant
from tspcli.annotations import AnnotatedVideo, Annotations, Segment, read_actions
from tspcli.annotations.write import write_activitynet
from tspcli.cli.main import cli, main
from tspcli.encoders.weights import find_weights
from tspcli.errors import AnnotationError
from tspcli.localization import localizer as checkpoints
from tspcli.localization import timeline_picture
from tspcli.localization.prediction import VideoPrediction
from tspcli.localization.results import Prediction, write_results

ODD_COLUMNS = [
    word for pair in ("video=clip", "start=a", "end=b", "label=what") for word in ("--column", pair)
]
SMALL = ["--temporal-scale", "16", "--channels", "16", "--epochs", "1", "--device", "cpu"]


def tsp(*arguments: object) -> int:
    """The exit code of ``tsp``."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    code = stop.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores, their annotations and a run."""
    folder = tmp_path_factory.mktemp("planted")
    annotations = plant(folder / "train.h5", 8, seed=1)
    annotations.update(plant(folder / "valid.h5", 4, seed=2, subset="validation"))
    write_activitynet(folder / "all.json", annotations)
    code = tsp(
        "localize", "train", *SMALL, "--features", folder / "train.h5",
        "--features", folder / "valid.h5", "--annotations", folder / "all.json",
        "--valid-annotations", folder / "all.json", "--out", folder / "run",
    )  # fmt: skip
    assert code == 0
    return folder


def test_train_says_what_it_does_and_repeats_nothing(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "localize", "train", *SMALL, "--features", planted / "train.h5",
        "--annotations", planted / "all.json", "--out", planted / "run2", "--json",
    ]  # fmt: skip
    assert tsp(*arguments) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["n_videos"] == 8
    assert len(report["history"]) == 1
    assert "8 training videos in 8 windows" in said.err
    assert "epoch 1/1: loss" in said.err
    assert tsp(*arguments) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == report
    assert "Resuming after epoch 1" in said.err
    assert tsp(*arguments, "--seed", "3") == 1
    assert "config.seed: 0, not 3" in capsys.readouterr().err


def test_predict_and_evaluate(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planted / "found.json"
    code = tsp(
        "localize", "predict", "--run", planted / "run", "--features", planted / "valid.h5",
        "--out", found, "--annotations", planted / "all.json", "--plot", planted / "pictures",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    stored = json.loads(found.read_text())
    assert set(stored["results"]) == {f"validation{index}" for index in range(4)}
    first = stored["results"]["validation0"][0]
    assert set(first) == {"segment", "score", "label"}
    assert first["label"] in LABELS
    names = {path.name for path in (planted / "pictures").iterdir()}
    assert names == {f"v_validation{index}.png" for index in range(4)}

    capsys.readouterr()
    evaluate = ["localize", "evaluate", "--results", found, "--annotations", planted / "all.json"]
    assert tsp(*evaluate) == 0
    shown, said = capsys.readouterr()
    for text in ("0.95", "average", "AR@100", "AUC"):
        assert text in shown
    truth = read_actions(planted / "all.json", role="validation")
    for label in LABELS:
        count = sum(s.label == label for video in truth.values() for s in video.segments)
        assert re.search(rf"{label} *│ *[0-9.]+ *│ *{count} ", shown)
    assert f"mAP is of {found}." in said
    assert f"AR and AUC are of {planted / 'found.proposals.json'}." in said
    assert "another label" not in said
    assert tsp(*evaluate, "--json", "--protocol", "thumos14") == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures["detection"]["map"]) == ["0.30", "0.40", "0.50", "0.60", "0.70"]
    assert 0 < figures["proposals"]["auc"] < 1
    assert figures["n_silent_videos"] == 0
    (planted / "blocked.txt").write_text("validation0\n\n a name \nvalidation1\n")
    assert tsp(*evaluate, "--json", "--blocked", planted / "blocked.txt") == 0
    assert json.loads(capsys.readouterr().out)["proposals"]["n_videos"] == 2


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The annotated actions in pictures, by the video's key."""
    found: dict[str, object] = {}

    def save(_: Path, video: VideoPrediction, truth: object) -> None:
        found[video.key] = truth

    monkeypatch.setattr(timeline_picture, "save_timeline", save)
    return found


def test_pictures_show_the_annotations_of_the_run(
    planted: Path, tmp_path: Path, drawn: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, run = tmp_path / "mine.json", tmp_path / "run.pth"
    shutil.copy(planted / "all.json", mine)
    stored = checkpoints.load(planted / "run" / "best.pth")
    (origin,) = stored["annotations"]
    assert origin["path"] == str(planted / "all.json")
    checkpoints.save(run, {**stored, "annotations": [{**origin, "path": str(mine)}]})
    predict = [
        "localize", "predict", "--run", run, "--features", planted / "valid.h5",
        "--out", tmp_path / "found.json", "--plot", tmp_path, "--device", "cpu",
    ]  # fmt: skip
    truth = read_actions(mine)
    expected = {f"v_validation{i}": truth[f"validation{i}"].segments for i in range(4)}
    assert tsp(*predict) == 0
    assert drawn == expected
    assert "the annotations that the run was trained with" in capsys.readouterr().err
    # What is given now counts alone.
    table = tmp_path / "table.csv"
    table.write_text("video,start,end,label\nvalidation1,1,2,run\n")
    assert tsp(*predict, "--annotations", table) == 0
    nothing = dict.fromkeys(expected)
    assert drawn == {**nothing, "v_validation1": (Segment(1.0, 2.0, "run"),)}
    mine.write_text(mine.read_text() + " ")
    capsys.readouterr()
    assert tsp(*predict) == 0
    assert drawn == nothing
    assert f"{mine} has changed" in " ".join(capsys.readouterr().err.split())


def test_runs_and_videos_without_annotations_have_pictures(
    planted: Path, tmp_path: Path, drawn: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    stored = checkpoints.load(planted / "run" / "best.pth")
    del stored["annotations"]  # as runs of 0.1.0
    checkpoints.save(tmp_path / "old.pth", stored)
    plant(tmp_path / "new.h5", 1, seed=3, subset="new")
    for run, features in (
        (tmp_path / "old.pth", planted / "valid.h5"),
        (planted / "run", tmp_path / "new.h5"),
    ):
        drawn.clear()
        code = tsp(
            "localize", "predict", "--run", run, "--features", features,
            "--out", tmp_path / "found.json", "--plot", tmp_path, "--device", "cpu",
        )  # fmt: skip
        assert code == 0
        assert drawn and set(drawn.values()) == {None}
        assert "annotations" not in capsys.readouterr().err


def test_a_subset_is_predicted_alone(planted: Path) -> None:
    out = planted / "subset.json"
    code = tsp(
        "localize", "predict", "--run", planted / "run", "--features", planted / "valid.h5",
        "--features", planted / "train.h5", "--annotations", planted / "all.json",
        "--subset", "training", "--out", out,
    )  # fmt: skip
    assert code == 0
    assert set(json.loads(out.read_text())["results"]) == {f"training{i}" for i in range(8)}


def test_a_subset_of_which_the_store_has_no_video_is_refused(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = planted / "none.json"
    code = tsp(
        "localize", "predict", "--run", planted / "run", "--features", planted / "valid.h5",
        "--annotations", planted / "all.json", "--subset", "training", "--out", out,
    )  # fmt: skip
    assert code == 1
    said = capsys.readouterr().err
    assert "'training'" in said and "training0" in said
    assert not out.exists()


def test_wrong_usage_is_told(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--features", planted / "valid.h5", "--videos", planted, "--out", planted / "x.json"]
    assert tsp("localize", "predict", "--run", planted / "run", *both) == 2
    assert "either --features or --videos" in capsys.readouterr().err
    assert tsp("localize", "predict", "--run", planted / "none", *both[:2], *both[4:]) == 1
    assert "does not exist" in capsys.readouterr().err
    evaluate = ["localize", "evaluate", "--annotations", planted / "all.json"]
    assert tsp(*evaluate, "--results", planted / "all.json") == 1
    assert "no 'results'" in capsys.readouterr().err
    assert tsp(*evaluate, "--results", planted / "subset.json", "--subset", "nothing") == 1
    assert "'nothing'" in capsys.readouterr().err


def test_from_video_files_to_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos, new = tmp_path / "videos", tmp_path / "new"
    videos.mkdir()
    new.mkdir()
    annotations = Annotations()
    for index in range(3):
        make_video(videos / f"v_old{index}.mp4", n_frames=200 + 30 * index)
        annotations[f"old{index}"] = AnnotatedVideo((Segment(1.0, 4.0, "count"),), None, "training")
    write_activitynet(tmp_path / "a.json", annotations)
    make_video(new / "fresh.mp4", n_frames=240)
    features = tmp_path / "f.h5"
    extract = ["--weights", "tiny", "--device", "cpu", "--stride", "8", "--workers", "1"]
    assert tsp("extract", "--videos", videos, "--out", features, *extract) == 0
    train = ["--features", features, "--annotations", tmp_path / "a.json"]
    assert tsp("localize", "train", *SMALL, *train, "--out", tmp_path / "run") == 0
    predict = ["localize", "predict", "--run", tmp_path / "run", "--videos", new, "--device", "cpu"]
    out = tmp_path / "found.json"
    capsys.readouterr()
    assert tsp(*predict, "--out", out, "--plot", tmp_path / "pictures", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["n_videos"] == 1
    found = json.loads(out.read_text())["results"]["fresh"]
    assert len(found) == summary["n_predictions"] > 0
    assert all(0 <= item["segment"][0] < item["segment"][1] <= 8.0 for item in found)
    assert {item["label"] for item in found} == {"count"}
    assert (tmp_path / "pictures" / "fresh.png").stat().st_size > 1000

    # Labels from the encoder's own head; a file that is no video is named, the others are done.
    (new / "broken.mp4").write_bytes(b"no video at all")
    assert tsp(*predict, "--out", out, "--classes", "action-head", "--json") == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["failed"] == ["broken"]
    assert "not-a-video" in said.err
    results = json.loads(out.read_text())["results"]
    assert set(results) == {"fresh"}
    assert {item["label"] for item in results["fresh"]} <= {
        "bounce", "circle", "pulse", "shake", "spin", "sway",
    }  # fmt: skip


def test_a_run_finds_the_checkpoint_that_its_features_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "v_a.mp4", n_frames=200)
    segment = Segment(1.0, 4.0, "count")
    write_activitynet(
        tmp_path / "a.json", Annotations({"a": AnnotatedVideo((segment,), None, "training")})
    )
    monkeypatch.chdir(tmp_path)
    shutil.copy(find_weights("tiny").local_path(), "mine.pth")
    features = tmp_path / "f.h5"
    extract = ["--weights", "mine.pth", "--device", "cpu", "--stride", "8", "--workers", "1"]
    assert tsp("extract", "--videos", videos, "--out", features, *extract) == 0
    train = ["--features", features, "--annotations", tmp_path / "a.json", "--classes", "none"]
    assert tsp("localize", "train", *SMALL, *train, "--out", tmp_path / "run") == 0
    # The name was relative, and the run is used elsewhere.
    monkeypatch.chdir(videos)
    predict = ["localize", "predict", "--run", tmp_path / "run", "--videos", videos]
    assert tsp(*predict, "--device", "cpu", "--out", tmp_path / "found.json") == 0
    assert json.loads((tmp_path / "found.json").read_text())["results"]["a"]
    (tmp_path / "mine.pth").unlink()
    capsys.readouterr()
    assert tsp(*predict, "--device", "cpu", "--out", tmp_path / "again.json") == 2
    assert str(tmp_path / "mine.pth") in capsys.readouterr().err


def test_other_dialects_of_the_same_actions_train_the_same(planted: Path) -> None:
    """THUMOS14's folder of class files, and a table of one's own."""
    annotations = read_actions(planted / "all.json", role="training")
    folder = planted / "annotation"
    folder.mkdir()
    (folder / "readme.txt").write_text("no class file")
    lines = ["video,start,end,label"]
    for name, video in annotations.items():
        for start_s, end_s, label, _ in video.segments:
            lines.append(f"{name},{start_s},{end_s},{label}")
            with open(folder / f"{label}_val.txt", "a") as file:
                file.write(f"{name} {start_s} {end_s}\n")
    table = planted / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    odd = planted / "odd.csv"
    odd.write_text("\n".join(["clip,a,b,what", *lines[1:]]) + "\n")
    histories = []
    for source in (planted / "all.json", folder, table, odd):
        out = planted / f"run_of_{source.stem}"
        train = ["--features", planted / "train.h5", "--annotations", source, "--out", out]
        train += ODD_COLUMNS if source is odd else []
        assert tsp("localize", "train", *SMALL, "--classes", "none", *train) == 0
        histories.append(json.loads((out / "log.json").read_text()))
    assert all(history == histories[0] for history in histories)


def test_columns_are_named_for_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "odd.csv"
    table.write_text("clip,a,b,what\nx,1,4,run\ny,0:02,0:05,jump\n")
    found = {"x": [Prediction(1, 4, 0.9, "run")], "y": [Prediction(2, 5, 0.8, "jump")]}
    write_results(tmp_path / "r.json", found)
    evaluate = ["localize", "evaluate", "-r", tmp_path / "r.json", "-a", table, "--json"]
    assert tsp(*evaluate, *ODD_COLUMNS) == 0
    assert json.loads(capsys.readouterr().out)["detection"]["average_map"] == 1.0
    assert tsp(*evaluate) == 1
    assert tsp(*evaluate, "--column", "video=nothing") == 2
    assert "'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["train", "-f", "{}/none.h5", "-o", "{}/run"], "--subset"),
        (["evaluate", "-r", "{}/none.json"], "--subset"),
    ],
)
def test_a_part_that_no_video_plays_is_asked_for(
    tmp_path: Path, words: list[str], option: str
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("video,start,end,label,subset\nx,1,4,run,first\ny,2,5,run,second\n")
    words = [word.format(tmp_path) for word in words]
    command = ["localize", *words, "--annotations", str(table)]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert isinstance(result.exception, AnnotationError)
    assert result.exception.data["known"] == ["first", "second"]
    assert option in str(result.exception.remedy)
