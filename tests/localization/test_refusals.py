"""What ``tsp localize`` refuses: outputs that are inputs, contradictions, absurd numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders.damaged_stores import flip_row
from tests.builders.videos import make_video
from tests.localization.planted import plant
from tests.localization.test_commands import SMALL, tsp
from tspcli.annotations.write import write_activitynet
from tspcli.errors import StoreError, UsageError
from tspcli.localization.evaluation import evaluate
from tspcli.localization.localize_config import LabelConfig, LossConfig, PredictConfig, TrainConfig
from tspcli.localization.prediction import predict
from tspcli.localization.results import Prediction
from tspcli.store import open_store, write_store
from tspcli.store.store_writer import content_checksum


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, its annotations, a run and a video."""
    place = tmp_path_factory.mktemp("refusals")
    write_activitynet(place / "anet.json", plant(place / "v2.h5", 3, seed=1))
    train = ["localize", "train", *SMALL, "--classes", "none", "--features", place / "v2.h5"]
    assert tsp(*train, "--annotations", place / "anet.json", "--out", place / "run") == 0
    make_video(place / "clip.mp4", n_frames=40)
    return place


@pytest.fixture
def unchanged(folder: Path) -> Any:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-f", "v2.h5", "--out", "v2.h5"], "--out (v2.h5) is the same file as --features (v2.h5)"),
        (["-f", "v2.h5", "--out", "./run/../v2.h5"], "as --features (v2.h5)"),
        (
            ["-f", "v2.h5", "-a", "anet.json", "--out", "anet.json"],
            "--out (anet.json) is the same file as --annotations (anet.json)",
        ),
        (["-f", "v2.h5", "--out", "run/best.pth"], "as --run (run/best.pth)"),
        (["-v", "clip.mp4", "--out", "same.h5"], "--features-out (same.h5) is the same file as --"),
        (["-v", "clip.mp4", "--out", "clip.mp4"], "--out (clip.mp4) is the same file as --videos"),
        (
            ["-v", "clip.mp4", "--out", "o.json", "--features-out", "o.proposals.json"],
            "is the same file as the proposals next to --out (o.proposals.json)",
        ),
    ],
)
def test_outputs_are_no_inputs(
    folder: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert tsp("localize", "predict", "--run", "run", *words) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.usefixtures("unchanged")
def test_a_run_does_not_replace_what_it_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "config.json"
    annotations.write_bytes((folder / "anet.json").read_bytes())
    arguments = ["localize", "train", *SMALL, "-f", folder / "v2.h5", "-a", annotations]
    assert tsp(*arguments, "--out", tmp_path, "--overwrite") == 2
    assert "is the same file as --annotations" in capsys.readouterr().err
    assert annotations.read_bytes() == (folder / "anet.json").read_bytes()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-f", "v2.h5", "--subset", "training"], "--subset needs --annotations"),
        (
            ["-f", "v2.h5", "--weights", "nonsense"],
            "--weights needs --videos or --classes",
        ),
        (["-f", "v2.h5", "--features-out", "x.h5"], "--features-out needs --videos"),
        (["-f", "v2.h5", "--stride", "3"], "the command says 15, 3, 16"),
        (["-v", "clip.mp4", "--stride", "16"], "--stride cannot be combined with --videos"),
        (
            ["-v", "clip.mp4", "-a", "anet.json", "--subset", "training"],
            "--subset cannot be combined with --videos",
        ),
        (["-f", "v2.h5", "-v", "clip.mp4"], "either --features or --videos"),
        (["-f", "v2.h5", "--top-classes", "3"], "--top-classes 3 has no effect"),
    ],
)
def test_predict_refuses_options_that_say_nothing(
    folder: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert tsp("localize", "predict", "--run", "run", *words, "--out", "new.json") == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_options_that_agree_with_the_store_are_taken(folder: Path, tmp_path: Path) -> None:
    words = ["-f", folder / "v2.h5", "--stride", "16", "--out", tmp_path / "found.json"]
    assert tsp("localize", "predict", "--run", folder / "run", *words) == 0


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--valid-subset", "validation"], "--valid-subset needs --valid-annotations"),
        (["--stride", "3"], "the command says 15, 3, 16"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--learning-rate", "inf"], "--learning-rate"),
        (["--window-s", "nan"], "--window-s"),
        (["--window-s", "1e-7"], "--window-s"),
        (["--window-s", "-5"], "--window-s"),
        (["--seed", "99999999999999999999"], "--seed"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_train_refuses_before_it_writes(
    folder: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["localize", "train", *SMALL, "-f", folder / "v2.h5", "-a", folder / "anet.json"]
    assert tsp(*arguments, "--out", tmp_path / "new", *words) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "new").exists()


def test_validation_videos_without_features_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = plant(tmp_path / "more.h5", 5, seed=1)
    write_activitynet(tmp_path / "more.json", annotations)
    arguments = ["localize", "train", *SMALL, "-f", folder / "v2.h5", "-a", folder / "anet.json"]
    arguments += ["--valid-annotations", tmp_path / "more.json", "--valid-subset", "training"]
    assert tsp(*arguments, "--classes", "none", "--out", tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "2 annotated validation videos, training3, training4" in said


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: TrainConfig(weight_decay=float("nan")), "weight_decay"),
        (lambda: TrainConfig(drop_epoch=0), "drop_epoch"),
        (lambda: PredictConfig(nms_sigma=float("nan")), "nms_sigma"),
        (lambda: PredictConfig(nms_low=1.5), "nms_low"),
        (lambda: LossConfig(regression_weight=float("inf")), "regression_weight"),
        (lambda: LabelConfig(region_ratio=-1), "region_ratio"),
    ],
)
def test_settings_are_numbers_in_their_range(make: Callable[[], object], option: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.data["option"] == option


@pytest.mark.parametrize("number", ["inf", "nan", "0"])
def test_the_number_of_proposals_is_finite(folder: Path, tmp_path: Path, number: str) -> None:
    results = tmp_path / "r.json"
    results.write_text(
        '{"results": {"training0": [{"segment": [1, 2], "score": 1}]}, "external_data": {}}'
    )
    arguments = ["localize", "evaluate", "-r", results, "-a", folder / "anet.json"]
    assert tsp(*arguments, "--subset", "training", "--max-proposals", number) == 2
    found = {"training0": [Prediction(1.0, 2.0, 1.0)]}
    with pytest.raises(UsageError, match="largest average number"):
        evaluate(folder / "anet.json", found, max_average_proposals=float(number))


def test_rows_that_are_not_those_written_are_not_used(folder: Path, tmp_path: Path) -> None:
    with open_store(folder / "v2.h5") as store:
        videos = [(key, video.rows, dict(video.attrs)) for key, video in store.items()]
        metadata = store.metadata
    for _, rows, attributes in videos:
        attributes["checksum"] = content_checksum(rows, attributes)
    path = tmp_path / "sealed.h5"
    write_store(path, videos, metadata)
    assert len(list(predict(folder / "run", [path]))) == len(videos)
    flip_row(path, videos[1][0])
    with pytest.raises(StoreError, match=videos[1][0]):
        list(predict(folder / "run", [path]))
    words = ["localize", "train", *SMALL, "--classes", "none", "--features", path]
    assert tsp(*words, "--annotations", folder / "anet.json", "--out", tmp_path / "run") == 1
