from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.refusals import refused
from tests.localization.planted import LABELS, SAMPLING, plant
from tspcli.annotations import AnnotatedVideo, Annotations, Segment
from tspcli.core.progress import Reporter
from tspcli.errors import (
    AnnotationError,
    CheckpointError,
    LocalizationError,
    StoreError,
    StoreMismatchError,
    TrainingError,
)
from tspcli.localization import localizer as checkpoints
from tspcli.localization import training as training
from tspcli.localization.classes import ActionHeadClassifier, ClassHead
from tspcli.localization.evaluation import evaluate
from tspcli.localization.feature_windows import annotated_videos, open_features
from tspcli.localization.localize_config import BmnConfig, ClassConfig, PredictConfig, TrainConfig
from tspcli.localization.localizer import load_localizer
from tspcli.localization.prediction import predict
from tspcli.localization.results import Prediction, result_name
from tspcli.localization.training import EpochLosses, train
from tspcli.localization.training_windows import TrainingWindows, class_samples
from tspcli.store import StoreMetadata, open_store, write_store

TINY = TrainConfig(
    model=BmnConfig(
        temporal_scale=32,
        n_samples=8,
        samples_per_bin=2,
        base_channels=32,
        hidden_channels=24,
        proposal_channels=32,
        map_channels=16,
    ),
    epochs=10,
    drop_epoch=9,
    batch_size=8,
    learning_rate=3e-3,
    device="cpu",
)
SHORT = replace(TINY, epochs=3, classes=ClassConfig(epochs=2))
CPU = PredictConfig(device="cpu")


def random_guesses(annotations: Annotations, seed: int) -> dict[str, list[Prediction]]:
    """As many predictions as a network makes, at random."""
    rng = np.random.default_rng(seed)
    return {
        name: [
            Prediction(
                *sorted(rng.uniform(0, video.duration_s or 0, 2)),
                float(rng.random()),
                LABELS[rng.integers(len(LABELS))],
            )
            for _ in range(200)
        ]
        for name, video in annotations.items()
    }


def states(run: Path) -> dict[str, Any]:
    return dict(checkpoints.load(run / "last.pth"))


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = states(one), states(other)
    assert first["history"] == second["history"]
    for part in ("model", "class_head"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name


@pytest.mark.parametrize("window_s", [None, 40.0])
def test_planted_actions_are_found_in_other_videos(tmp_path: Path, window_s: float | None) -> None:
    learned = plant(tmp_path / "train.h5", 50, seed=1)
    held_out = plant(tmp_path / "valid.h5", 20, seed=2, subset="validation")
    config = replace(TINY, window_s=window_s)
    run = train(tmp_path / "train.h5", learned, tmp_path / "run", config=config).run
    found = {
        result_name(video.key): video.predictions
        for video in predict(run, tmp_path / "valid.h5", config=CPU)
    }
    assert set(found) == set(held_out)
    got, chance = evaluate(held_out, found), evaluate(held_out, random_guesses(held_out, 0))
    assert got.detection is not None
    assert chance.detection is not None
    assert chance.detection.map_at(0.5) < 0.15
    assert got.detection.map_at(0.5) > 0.6
    assert got.detection.average_map > chance.detection.average_map + 0.3
    assert got.proposals.auc > chance.proposals.auc + 0.2


def test_a_stopped_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 10, seed=1)
    valid = plant(tmp_path / "valid.h5", 4, seed=2, subset="validation")
    stores = [tmp_path / "train.h5", tmp_path / "valid.h5"]
    whole = train(stores, learned, tmp_path / "whole", config=SHORT, valid=valid)

    class Killed(BaseException):
        pass

    class KillInEpoch2(Reporter):
        def advance(self, task: str, done: int, figures: Any = "") -> None:
            if str(figures).startswith("epoch 2/3"):
                raise Killed

    class Resumed(Reporter):
        def __init__(self) -> None:
            self.epochs: list[int] = []

        def result(self, result: Any) -> None:
            if isinstance(result, EpochLosses):
                self.epochs.append(result.epoch)

    parts = tmp_path / "parts"
    with pytest.raises(Killed):
        train(stores, learned, parts, config=SHORT, valid=valid, reporter=KillInEpoch2())
    assert len(states(parts)["history"]) == 1
    about = json.loads((parts / "config.json").read_text())
    assert about.pop("precision") == "fp32"
    (parts / "config.json").write_text(json.dumps(about))  # as earlier versions left it
    resumed = Resumed()
    again = train(stores, learned, parts, config=SHORT, valid=valid, reporter=resumed)
    assert resumed.epochs[0] == 2
    assert again.best_epoch == whole.best_epoch
    assert_same_weights(tmp_path / "whole", parts)
    assert json.loads((parts / "log.json").read_text()) == whole.history
    lowest = min(whole.history, key=lambda losses: losses["valid_loss"])
    assert whole.history[whole.best_epoch - 1] is lowest

    class Idle(Reporter):
        def start(self, task: str, total: int, done: int = 0, about: Any = "") -> None:
            raise AssertionError

    train(stores, learned, parts, config=SHORT, valid=valid, reporter=Idle())
    assert not list(parts.glob(".*"))


def test_seeds_repeat_and_differ(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 6, seed=1)
    config = replace(SHORT, epochs=1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / "train.h5", learned, tmp_path / name, config=replace(config, seed=seed))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    first, third = states(tmp_path / "a"), states(tmp_path / "c")
    assert first["history"] != third["history"]


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 6, seed=1)
    config = replace(SHORT, epochs=1)
    run = tmp_path / "run"
    train(tmp_path / "train.h5", learned, run, config=config)
    with pytest.raises(TrainingError, match=r"config\.seed: 0, not 5"):
        train(tmp_path / "train.h5", learned, run, config=replace(config, seed=5))
    fewer = Annotations(list(learned.items())[:-1])
    with pytest.raises(TrainingError, match=r"videos\.training"):
        train(tmp_path / "train.h5", fewer, run, config=config)
    train(tmp_path / "train.h5", fewer, run, config=replace(config, seed=5), overwrite=True)
    assert states(run)["config"]["seed"] == 5


def test_a_folder_is_refused_before_features_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = plant(tmp_path / "train.h5", 6, seed=1)
    config = replace(SHORT, epochs=1)
    train(tmp_path / "train.h5", learned, tmp_path / "run", config=config)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "log.json").write_text("[]")

    def read(*arguments: object) -> None:
        pytest.fail("all features are read")

    monkeypatch.setattr(training, "TrainingWindows", read)
    with pytest.raises(TrainingError, match=r"config\.seed: 0, not 5\."):
        train(tmp_path / "train.h5", learned, tmp_path / "run", config=replace(config, seed=5))
    with pytest.raises(TrainingError, match=r"holds log\.json, but no config\.json"):
        train(tmp_path / "train.h5", learned, tmp_path / "foreign", config=config)
    (tmp_path / "run" / "last.pth").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="cannot resume from"):
        train(tmp_path / "train.h5", learned, tmp_path / "run", config=config)


def test_a_video_has_the_actions_of_its_own_name_alone(tmp_path: Path) -> None:
    """`v_x` beside `x`, of which only the second is annotated; the first may be `v_v_x` at most."""
    rows = np.zeros((30, 4), np.float32)
    videos = [(key, rows + index, {"duration_s": 30.0}) for index, key in enumerate(("v_x", "x"))]
    metadata = StoreMetadata.build(sampling=SAMPLING, encoder={"backbone": "none"})
    write_store(tmp_path / "f.h5", videos, metadata)
    one = AnnotatedVideo((Segment(1.0, 4.0, "run"),), 30.0)
    other = AnnotatedVideo((Segment(5.0, 9.0, "run"),), 30.0)
    with open_features(tmp_path / "f.h5") as opened:
        (found,), _ = annotated_videos(opened, Annotations({"x": one}))
        assert found.key == "x"
        both, _ = annotated_videos(opened, Annotations({"x": one, "v_v_x": other}))
        assert [video.segments for video in both] == [other.segments, one.segments]


def test_rows_are_not_kept_once_they_are_on_the_grid(tmp_path: Path) -> None:
    """A dense store may be larger than memory."""
    learned = plant(tmp_path / "train.h5", 4, seed=1)
    with open_features(tmp_path / "train.h5") as opened:
        videos, _ = annotated_videos(opened, learned)
        TrainingWindows(videos, SHORT)
        class_samples(videos, ClassHead(opened.dim, learned.labels(), SHORT.classes))
        assert len(videos) == 4
        assert not any("rows" in vars(video.features) for video in videos)


def test_new_features_are_another_run(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 6, seed=1)
    valid = plant(tmp_path / "valid.h5", 3, seed=2, subset="validation")
    config = replace(SHORT, epochs=1)

    def again() -> None:
        stores = [tmp_path / "train.h5", tmp_path / "valid.h5"]
        train(stores, learned, tmp_path / "run", config=config, valid=valid)

    again()
    again()
    for name, part in (("train.h5", "training"), ("valid.h5", "validation")):
        before = (tmp_path / name).read_bytes()
        with open_store(tmp_path / name) as store:
            videos = [(key, store[key].rows.copy(), store[key].attrs) for key in store]
            metadata = store.metadata
        # The last value of the last video, and nothing else.
        videos[-1][1][-1, -1] += 1e-3
        write_store(tmp_path / name, videos, metadata)
        with pytest.raises(TrainingError, match=rf"features\.{part}: \w+, not \w+"):
            again()
        (tmp_path / name).write_bytes(before)
    again()


@pytest.mark.parametrize("name", ["best.pth", "last.pth", "log.json"])
def test_files_of_another_program_stay(tmp_path: Path, name: str) -> None:
    learned = plant(tmp_path / "train.h5", 3, seed=1)
    config = replace(SHORT, epochs=1)
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_bytes(b"somebody's work")
    with pytest.raises(TrainingError, match=rf"holds {name}, but no config\.json") as found:
        train(tmp_path / "train.h5", learned, run, config=config)
    assert "--overwrite" in str(found.value.remedy)
    assert [path.name for path in run.iterdir()] == [name]
    assert (run / name).read_bytes() == b"somebody's work"
    train(tmp_path / "train.h5", learned, run, config=config, overwrite=True)
    assert states(run)["history"]
    (run / "last.pth").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"cannot resume from .*last\.pth") as found:
        train(tmp_path / "train.h5", learned, run, config=config)
    assert "--overwrite" in str(found.value.remedy)
    (run / "config.json").write_text('{"name": "of another program"}')
    with refused(TrainingError, path=run / "config.json"):
        train(tmp_path / "train.h5", learned, run, config=config)


def test_what_cannot_be_trained_leaves_nothing(tmp_path: Path) -> None:
    learned = plant(tmp_path / "a.h5", 3, seed=1)
    learned["training0"] = AnnotatedVideo((Segment(9.0, 5.0, "run"),), 30.0)
    with pytest.raises(AnnotationError, match="'training0': 'run' ends at 5 s, before"):
        train(tmp_path / "a.h5", learned, tmp_path / "run", config=SHORT)
    assert not (tmp_path / "run").exists()


def test_videos_without_features_are_reported(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 6, seed=1)
    learned["gone"] = AnnotatedVideo((Segment(0.0, 5.0, "run"),), 30.0)
    report = train(
        tmp_path / "train.h5", learned, tmp_path / "run", config=replace(SHORT, epochs=1)
    )
    assert report.missing == ["gone"]
    assert report.valid_missing == []
    assert report.n_videos == 6
    report = train(
        tmp_path / "train.h5",
        learned,
        tmp_path / "run",
        config=replace(SHORT, epochs=1),
        valid=learned,
        overwrite=True,
    )
    assert report.valid_missing == ["gone"]
    assert report.to_dict()["valid_missing"] == ["gone"]
    other = Annotations({"gone": learned["gone"]})
    with pytest.raises(LocalizationError, match=r"'v_training0'.*'gone'"):
        train(tmp_path / "train.h5", other, tmp_path / "run2", config=SHORT)


def test_infinite_features_are_named(tmp_path: Path) -> None:
    learned = plant(tmp_path / "a.h5", 3, seed=1)
    run = train(tmp_path / "a.h5", learned, tmp_path / "run", config=replace(SHORT, epochs=1)).run
    with open_store(tmp_path / "a.h5") as store:
        rows = {key: store[key].rows for key in store}
        rows["v_training1"][7, 3] = np.inf
        videos = [(key, rows[key], store[key].attrs) for key in store]
        write_store(tmp_path / "b.h5", videos, store.metadata)
    with pytest.raises(LocalizationError, match="'v_training1' are not all finite"):
        train(tmp_path / "b.h5", learned, tmp_path / "run2", config=SHORT)
    with pytest.raises(LocalizationError, match="'v_training1' are not all finite"):
        list(predict(run, tmp_path / "b.h5", config=CPU))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    learned = plant(tmp_path / "a.h5", 10, seed=1)
    wild = replace(SHORT, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf)"):
        train(tmp_path / "a.h5", learned, tmp_path / "run", config=wild)


def test_prediction_options(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 8, seed=1)
    run = train(tmp_path / "train.h5", learned, tmp_path / "run", config=SHORT).run
    localizer = load_localizer(run)
    whole = list(predict(localizer, tmp_path / "train.h5", config=CPU))
    assert [video.key for video in whole] == sorted(f"v_{name}" for name in learned)
    for video in whole:
        scores = [item.score for item in video.predictions]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= p.start_s < p.end_s <= video.duration_s for p in video.predictions)
        assert {p.label for p in video.predictions} <= set(LABELS)

    # Batches of one give the same up to the arithmetic's rounding.
    single = list(predict(localizer, tmp_path / "train.h5", config=replace(CPU, batch_size=1)))
    for one, other in zip(whole, single, strict=True):
        np.testing.assert_allclose(
            [p.score for p in one.predictions], [p.score for p in other.predictions], rtol=1e-3
        )

    few = replace(CPU, max_proposals=3, top_classes=1)
    (video,) = predict(localizer, tmp_path / "train.h5", config=few, keys=["v_training3"])
    assert video.key == "v_training3"
    assert 1 <= len(video.predictions) <= 3

    fixed = ActionHeadClassifier(
        ("always", "never"), lambda rows: torch.tensor([[50.0, -50.0]]).expand(len(rows), 2)
    )
    (video,) = predict(
        localizer, tmp_path / "train.h5", config=few, classifier=fixed, keys=["v_training3"]
    )
    assert {p.label for p in video.predictions} == {"always"}
    with pytest.raises(LocalizationError, match="'v_none'"):
        list(predict(localizer, tmp_path / "train.h5", keys=["v_none"]))


def test_proposals_without_classes(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 6, seed=1)
    config = replace(SHORT, epochs=1, classes=ClassConfig(source="none"))
    run = train(tmp_path / "train.h5", learned, tmp_path / "run", config=config).run
    for video in predict(run, tmp_path / "train.h5", config=CPU):
        assert video.predictions
        assert {item.label for item in video.predictions} == {None}


def test_features_of_another_encoder_are_refused(tmp_path: Path) -> None:
    learned = plant(tmp_path / "a.h5", 4, seed=1)
    plant(tmp_path / "b.h5", 4, seed=1, subset="other", weights_sha256="f" * 64)
    plant(tmp_path / "c.h5", 4, seed=1, dim=8)
    config = replace(SHORT, epochs=1)
    run = train(tmp_path / "a.h5", learned, tmp_path / "run", config=config).run
    with pytest.raises(StoreMismatchError, match="weights_sha256: ffff"):
        list(predict(run, tmp_path / "b.h5", config=CPU))
    with pytest.raises(StoreMismatchError, match="weights_sha256"):
        train([tmp_path / "a.h5", tmp_path / "b.h5"], learned, tmp_path / "run2", config=config)
    with pytest.raises(LocalizationError, match="width 8"):
        list(predict(run, tmp_path / "c.h5", config=CPU))
    with refused(StoreError, video="v_training0"):
        train([tmp_path / "a.h5", tmp_path / "a.h5"], learned, tmp_path / "run2", config=config)


def test_a_store_that_tells_no_times_needs_a_sampling(tmp_path: Path) -> None:
    learned = plant(tmp_path / "a.h5", 4, seed=1)
    with open_store(tmp_path / "a.h5") as store:
        rows = [(key, store[key].rows, {}) for key in store]
        write_store(tmp_path / "bare.h5", rows, StoreMetadata({}, {}, None))
    config = replace(SHORT, epochs=1)
    with pytest.raises(StoreError, match=r"bare\.h5"):
        train(tmp_path / "bare.h5", learned, tmp_path / "run", config=config)
    train(tmp_path / "a.h5", learned, tmp_path / "told", config=config)
    train(tmp_path / "bare.h5", learned, tmp_path / "run", config=config, sampling=SAMPLING)
    assert_same_weights(tmp_path / "told", tmp_path / "run")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


def test_checkpoints_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoints.FORMAT, "model": Harmful()}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=r"best\.pth"):
        load_localizer(tmp_path)
    assert not Path("harm").exists()
    torch.save({"model": {}}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="no localization network"):
        load_localizer(tmp_path)
    torch.save({"format": checkpoints.FORMAT, "config": {}}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="damaged"):
        load_localizer(tmp_path)
    (tmp_path / "best.pth").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="safely"):
        load_localizer(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_localizer(tmp_path / "none")
