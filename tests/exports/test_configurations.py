"""The configurations of OpenTAD, ActionFormer and PDVC for every data set, and one's own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.exports import readers
from tests.exports.conftest import ANET, THUMOS, TIME, Clip, Export, make_store
from tspcli.annotations.dialects import DATA_SETS
from tspcli.cli.main import cli
from tspcli.errors import AnnotationError, ExportError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling

OWN = (Clip("cam 1", 61.0, 25.0), Clip("cam2", 100.5, 25.0), Clip("Kamera_3", 700.0, 25.0))
DIM = 24
RHYTHMS = {"dense": Sampling(stride=1), "odd": Sampling(clip_length=15, stride=8), "": Sampling()}

# OpenTAD's own configurations: what each inherits, and its attention windows and pyramid.
INHERITED = {
    "activitynet": "actionformer/anet_tsp.py",
    "thumos14": "actionformer/thumos_i3d.py",
    "multithumos": "actionformer/multithumos_i3d.py",
    "hacs": "actionformer/hacs_slowfast.py",
    "fineaction": "actionformer/fineaction_videomae_h.py",
    "charades": "actionformer/charades_i3d_rgb.py",
    "epic-kitchens": "actionformer/epic_kitchens_slowfast_verb.py",
    "ego4d": "actionformer/ego4d_slowfast.py",
    "own": "actionformer/thumos_i3d.py",
}
WINDOWS = {
    "thumos14": ([19] * 6, 307.2),
    "multithumos": ([19] * 6, 307.2),
    "own": ([19] * 6, 307.2),
    "hacs": ([13] * 5 + [-1], 512.0),
    "charades": ([-1] * 7, 256.0),
    "epic-kitchens": ([9] * 6, 1228.8),
    "ego4d": ([9] * 6 + [-1] * 3, 16384 / 30),
}
WORDS = {
    "epic-kitchens": ("train", "val"),
    "ego4d": ("train", "val"),
    "charades": ("training", "testing"),
}
PADDED = sorted(WINDOWS)


def divisor(windows: list[int]) -> int:
    """What both readers assert that the length is divisible by."""
    strides = [2**level * (w // 2 * 2 if w > 1 else 1) for level, w in enumerate(windows)]
    return math.lcm(*strides)


def annotate(path: Path, clips: tuple[Clip, ...], labels: tuple[str, ...] = ("a", "b")) -> Path:
    """ActivityNet's JSON with two actions per video whose times fall between frames."""
    database = {}
    for number, clip in enumerate(clips):
        third = clip.duration_s / 3
        spans = [(third + 0.037, 2 * third + 0.011), (1.533, 4.029)]
        database[clip.key] = {
            "subset": ("training", "validation")[number % 2],
            "duration": clip.duration_s,
            "annotations": [
                {"segment": list(span), "label": labels[i % len(labels)]}
                for i, span in enumerate(spans)
            ],
        }
    path.write_text(json.dumps({"database": database}))
    return path


@pytest.fixture(scope="module", params=sorted(RHYTHMS))
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("own")
    sampling = RHYTHMS[request.param]
    store = make_store(folder / "own.h5", OWN, sampling, dim=DIM)
    return store, annotate(folder / "own.json", OWN), sampling


def test_every_data_set_has_a_configuration() -> None:
    assert set(INHERITED) == set(DATA_SETS)


@pytest.mark.parametrize("data_set", PADDED)
def test_opentad(own: tuple, export: Export, tmp_path: Path, data_set: str) -> None:
    store, annotations, sampling = own
    export(store, "opentad", tmp_path / "o", [annotations], data_set=data_set)
    values = readers.opentad_values(tmp_path / "o")
    assert values["_base_"] == [f"{{{{$OPENTAD:../..}}}}/configs/{INHERITED[data_set]}"]
    train, test = WORDS.get(data_set, ("training", "validation"))
    assert [values["dataset"][p]["subset_name"] for p in ("train", "val", "test")] == [
        *(train, test, test)
    ]
    assert values["evaluation"]["subset"] == test
    assert values["evaluation"]["ground_truth_filename"] == values["annotation_path"]
    found = readers.opentad_loader(values, "train")
    assert set(found) == {"cam 1", "Kamera_3"}
    assert set(readers.opentad_loader(values, "test")) == {"cam2"}
    truth = json.loads(annotations.read_text())["database"]
    for video, labels in found.items():
        rows = readers.opentad_features(values, "train", video)
        assert rows.shape[1] == DIM
        # Positions between rows are read off at the rows' own times, to which they must return.
        known = np.arange(len(rows)), rows[:, TIME].astype(float)
        for (start, end, label), item in zip(labels, truth[video]["annotations"], strict=True):
            np.testing.assert_allclose(np.interp([start, end], *known), item["segment"], atol=1e-3)
            assert label == item["label"]
    windows, seconds = WINDOWS[data_set]
    length = values["model"]["projection"]["max_seq_len"]
    assert values["model"]["projection"]["in_channels"] == DIM
    assert length % divisor(windows) == 0
    needed = seconds / float(sampling.stride_s)
    if data_set in ("hacs", "charades"):  # these pad for evaluation, and would shrink longer videos
        needed = max(needed, sampling.n_clips(700 * 30))
    assert needed <= length + 1e-6 and length < needed + divisor(windows)
    crop = next(s for s in values["dataset"]["train"]["pipeline"] if s["type"] == "RandomTrunc")
    assert crop["trunc_len"] == length
    if data_set == "hacs":
        assert "rpn_head" not in values["model"]
        assert values["dataset"]["train"]["class_agnostic"] is True
    else:
        assert values["model"]["rpn_head"]["num_classes"] == 2
        assert values["dataset"]["train"]["class_agnostic"] is False


def test_opentad_resizes_as_its_bases_do(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    for data_set in ("activitynet", "fineaction"):
        out = tmp_path / data_set
        report = export(anet_store, "opentad", out, [anet_annotations], data_set=data_set)
        values = readers.opentad_values(out)
        assert values["_base_"][0].endswith(INHERITED[data_set])
        assert values["dataset"]["test"]["resize_length"] == 192
        assert values["dataset"]["test"]["class_agnostic"] is True
        assert any("200" in note for note in report.notes) == (data_set == "activitynet")


def test_many_classes_of_epic_kitchens_are_nouns(export: Export, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.h5", OWN[:2], Sampling(), dim=4)
    data = json.loads(annotate(tmp_path / "a.json", OWN[:2]).read_text())
    data["database"]["cam2"]["annotations"] = [
        {"segment": [i, i + 0.9], "label": f"noun {i}"} for i in range(1, 99)
    ]
    (tmp_path / "a.json").write_text(json.dumps(data))
    export(store, "opentad", tmp_path / "o", [tmp_path / "a.json"], data_set="epic-kitchens")
    values = readers.opentad_values(tmp_path / "o")
    assert values["_base_"][0].endswith("epic_kitchens_slowfast_noun.py")


def test_opentad_without_annotations_counts_no_classes(export: Export, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.h5", OWN[:2], Sampling(), dim=4)
    export(store, "opentad", tmp_path / "o")
    assert readers.opentad_values(tmp_path / "o")["model"]["rpn_head"]["num_classes"] is None
    export(store, "actionformer", tmp_path / "a")
    assert readers.actionformer_config(tmp_path / "a")["dataset"]["num_classes"] is None


@pytest.mark.parametrize("data_set", ["own", "thumos14", "epic-kitchens"])
def test_videos_that_the_padded_loader_leaves_out_are_noted(
    export: Export, tmp_path: Path, data_set: str
) -> None:
    """Their labels end before the centre of the first row, 8/15 s."""
    clips = (Clip("early", 30.0, 25.0), Clip("both", 30.0, 25.0), Clip("valid", 30.0, 25.0))
    store = make_store(tmp_path / "s.h5", clips, Sampling(), dim=4)
    path = annotate(tmp_path / "a.json", clips)
    data = json.loads(path.read_text())
    data["database"]["early"]["annotations"] = [{"segment": [0.0, 0.5], "label": "a"}]
    data["database"]["both"]["subset"] = "training"
    data["database"]["both"]["annotations"].append({"segment": [0.1, 0.3], "label": "a"})
    data["database"]["valid"]["subset"] = "validation"
    path.write_text(json.dumps(data))
    report = export(store, "opentad", tmp_path / "o", [path], data_set=data_set)
    (note,) = [note for note in report.notes if "leaves out" in note]
    assert "1 video " in note and "'early'" in note
    found = readers.opentad_loader(readers.opentad_values(tmp_path / "o"), "train")
    assert {name: len(labels) for name, labels in found.items()} == {"both": 2}


@pytest.mark.parametrize("target", ["opentad", "actionformer"])
def test_keep_keeps_ids(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path, target: str
) -> None:
    """Annotations have the names of the files, so nothing is put before them."""
    report = export(anet_store, target, tmp_path / "o", [anet_annotations], name_prefix="keep")
    database = json.loads(Path(report.annotations[0]).read_text())["database"]
    assert set(database) == {clip.key for clip in ANET}
    assert all((tmp_path / "o" / f"{name}.npy").is_file() for name in database)
    if target == "opentad":
        assert readers.opentad_values(tmp_path / "o")["load"][0]["prefix"] == ""
    else:
        assert readers.actionformer_config(tmp_path / "o")["dataset"]["file_prefix"] == ""


LOADERS = {
    "thumos14": ("thumos", 19, 6, 307.2),
    "multithumos": ("thumos", 19, 6, 307.2),
    "charades": ("thumos", 19, 6, 256.0),
    "own": ("anet", 19, 6, 307.2),
    "fineaction": ("anet", 19, 6, 307.2),
    "hacs": ("anet", 19, 6, 512.0),
    "epic-kitchens": ("epic", 9, 6, 1228.8),
    "ego4d": ("ego4d", 9, 7, 16384 / 30),
}


@pytest.mark.parametrize("data_set", sorted(LOADERS))
def test_actionformer(own: tuple, export: Export, tmp_path: Path, data_set: str) -> None:
    store, annotations, sampling = own
    export(store, "actionformer", tmp_path / "a", [annotations], data_set=data_set)
    config = readers.actionformer_config(tmp_path / "a")
    loader, attention, levels, seconds = LOADERS[data_set]
    assert config["dataset_name"] == loader
    data, model = config["dataset"], config["model"]
    assert data["num_classes"] == 2 and data["input_dim"] == DIM
    assert config["test_cfg"].get("ext_score_file") is None
    assert config["test_cfg"]["multiclass_nms"] is True
    truth = json.loads(annotations.read_text())["database"]
    found = readers.actionformer_loader(config, "train")
    assert set(found) == {"cam 1", "Kamera_3"}
    assert set(readers.actionformer_loader(config, "val")) == {"cam2"}
    for video, (rows, labels) in found.items():
        known = np.arange(len(rows)), rows[:, TIME].astype(float)
        for span, item in zip(labels, truth[video]["annotations"], strict=True):
            np.testing.assert_allclose(np.interp(span, *known), item["segment"], atol=1e-3)
    length, multiple = data["max_seq_len"], divisor([attention] * levels)
    needed = seconds / float(sampling.stride_s)
    assert length % multiple == 0 and needed <= length + 1e-6 and length < needed + multiple
    # The points of the pyramid reach to the end of the longest video, padded as it is for testing.
    longest = sampling.n_clips(700 * 30)
    padded = -(-longest // multiple) * multiple
    assert padded <= length * model["max_buffer_len_factor"]


def test_actionformer_on_very_long_videos(export: Export, tmp_path: Path) -> None:
    clips = (Clip("one", 5000.0, 25.0), Clip("two", 40.0, 25.0))
    store = make_store(tmp_path / "s.h5", clips, Sampling(), dim=4)
    export(store, "actionformer", tmp_path / "a", [annotate(tmp_path / "a.json", clips)])
    config = readers.actionformer_config(tmp_path / "a")
    assert config["dataset"]["max_seq_len"] * config["model"]["max_buffer_len_factor"] > 5000 * 0.95


def test_classes_of_own_videos_with_names_like_activitynet_are_noted(
    export: Export, tmp_path: Path
) -> None:
    clips = tuple(Clip(f"v_own-video-{i}", 40.0, 25.0) for i in range(2))
    store = make_store(tmp_path / "s.h5", clips, Sampling(), dim=4)
    path = annotate(tmp_path / "a.json", clips)
    for target in ("actionformer", "opentad"):
        report = export(store, target, tmp_path / target, [path])
        assert report.data_set == "activitynet"
        assert any("--data-set own" in note for note in report.notes)
        report = export(store, target, tmp_path / f"{target}2", [path], data_set="own")
        assert not any("--data-set own" in note for note in report.notes)
    config = readers.actionformer_config(tmp_path / "actionformer2")
    assert config["dataset"]["num_classes"] == 2


@pytest.mark.parametrize("target", ["opentad", "actionformer"])
@pytest.mark.parametrize("data_set", ["own", "epic-kitchens", "thumos14"])
def test_rows_at_a_stride_are_neither_resized_nor_mixed(
    export: Export, tmp_path: Path, target: str, data_set: str
) -> None:
    store = make_store(tmp_path / "s.h5", THUMOS[:2], Sampling(), dim=4)
    with refused(ExportError, option="--length", value=100):
        export(store, target, tmp_path / "o", data_set=data_set, length=100)
    other = make_store(tmp_path / "t.h5", THUMOS[2:], Sampling(stride=4), dim=4)
    with pytest.raises((ExportError, StoreMismatchError)):
        export([store, other], target, tmp_path / "o", data_set=data_set)


@pytest.mark.parametrize(
    ("width", "kind", "file"),
    [
        (128, "vggish", "v_ABCDEFGHI24.npy"),
        (500, "c3d", "v_ABCDEFGHI24.npy"),
        (1024, "i3d_rgb", "v_ABCDEFGHI24_rgb.npy"),
        (2048, "resnet", "ABCDEFGHI24_resnet.npy"),
    ],
)
def test_pdvc_has_feature_types_by_width(
    export: Export, tmp_path: Path, width: int, kind: str, file: str
) -> None:
    store = make_store(tmp_path / "s.h5", ANET[:1], Sampling(), dim=width)
    export(store, "pdvc", tmp_path / "p")
    config = yaml.safe_load((tmp_path / "p" / "pdvc.yml").read_text())
    assert (config["visual_feature_type"], config["feature_dim"]) == ([kind], width)
    assert np.load(tmp_path / "p" / file).shape[1] == width


def test_pdvc_takes_wider_rows_padded(export: Export, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.h5", ANET[:1], Sampling(), dim=768)
    with refused(ExportError, option="--pad-channels", value=768):
        export(store, "pdvc", tmp_path / "p")
    assert export(store, "pdvc", tmp_path / "p", pad_channels=1024).width == 1024


def test_pdvc_evaluates_against_the_written_captions(
    anet_store: Path, export: Export, tmp_path: Path
) -> None:
    paths = []
    for name, clips in (("train_modified", ANET[:2]), ("val_1", ANET[2:]), ("val_2", ANET[2:])):
        captions = {"duration": 9.0, "timestamps": [[0, 2]], "sentences": ["A dog."]}
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({clip.key: captions for clip in clips}))
    export(anet_store, "pdvc", tmp_path / "p", paths)
    config = yaml.safe_load((tmp_path / "p" / "pdvc.yml").read_text())
    folder = tmp_path / "p" / "annotations"
    assert config["train_caption_file"] == str(folder / "train_modified.json")
    assert config["val_caption_file"] == str(folder / "val_1.json")
    assert config["gt_file_for_eval"] == [str(folder / f"val_{i}.json") for i in (1, 2)]


@pytest.mark.parametrize("target", ["opentad", "actionformer", "bmn"])
def test_columns_can_be_named(export: Export, tmp_path: Path, target: str) -> None:
    store = make_store(tmp_path / "s.h5", OWN[:2], Sampling(), dim=4)
    table = tmp_path / "mine.csv"
    table.write_text(
        "tape;in;out;what;split\ncam 1;3;0:09;a;train\ncam2;4;12.5;b;val\ncam2;20;30;a;val\n"
    )
    words = ["export", str(store), "--to", target, "--out", str(tmp_path / "o"), "-a", str(table)]
    refusal = CliRunner().invoke(cli, words, standalone_mode=False).exception
    assert isinstance(refusal, AnnotationError)
    for pair in ("video=tape", "start=in", "end=out", "label=what"):
        words += ["--column", pair]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    if target == "opentad":
        values = readers.opentad_values(tmp_path / "o")
        assert values["model"]["rpn_head"]["num_classes"] == 2
    other = [*words[:-8], "--overwrite", "--column", "video=nothing"]
    refusal = CliRunner().invoke(cli, other, standalone_mode=False).exception
    assert isinstance(refusal, UsageError) and refusal.data["value"] == "nothing"
