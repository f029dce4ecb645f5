"""The settings that are printed for readers, against what their code needs for rows of TSP."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.exports import readers
from tests.exports.conftest import Export


def switches(usage: str) -> dict[str, str]:
    """The switches of the first command of some usage."""
    command = re.search(r"^  python .*?(?<!\\)$", usage, re.M | re.S)
    assert command is not None
    words = shlex.split(command[0].replace("\\\n", " "))
    found = {}
    for number, word in enumerate(words):
        if word.startswith("--"):
            value = words[number + 1] if number + 1 < len(words) else ""
            found[word[2:]] = "" if value.startswith("--") else value
    return found


def test_gtad_on_activitynet(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    """Its default width is 400, and it makes 100 steps of every video."""
    out = tmp_path / "g.hdf5"
    found = switches(export(anet_store, "gtad-anet", out, [anet_annotations]).usage)
    annotations = tmp_path / "g.hdf5.export" / "annotations"
    assert found == {
        "feature_path": str(out),  # with a slash at its end it would be a folder
        "feat_dim": "512",
        "temporal_scale": "100",
        "video_info": str(annotations / "video_info_new.csv"),
        "video_anno": str(annotations / "anet_anno_action.json"),
    }


def test_gtad_on_thumos14(
    thumos_store: Path, thumos_annotations: list[Path], export: Export, tmp_path: Path
) -> None:
    """Names are joined to the annotation folder, and old windows are used unless overridden."""
    out = tmp_path / "g"
    report = export(thumos_store, "gtad-thumos", out, thumos_annotations)
    folder = f"{out}/annotations/"
    assert switches(report.usage) == {
        "feature_path": str(out),
        "feat_dim": "512",
        "video_info": folder,
        "video_anno": folder,
        "override": "",
    }
    assert f"Delete {folder}saved.*.pkl" in report.usage


def test_bmn(anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path) -> None:
    """It appends csv_mean_100 to the path without a slash between."""
    found = switches(export(anet_store, "bmn", tmp_path / "b", [anet_annotations]).usage)
    assert found["feature_path"] == f"{tmp_path}/b/"
    assert (found["feat_dim"], found["temporal_scale"]) == ("512", "100")
    assert Path(f"{found['feature_path']}csv_mean_{found['temporal_scale']}").is_dir()
    for name in ("video_info", "video_anno"):
        assert Path(found[name]).is_file()


def test_mmaction2(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    export(anet_store, "mmaction2", tmp_path / "m", [anet_annotations])
    values: dict = {}
    exec((tmp_path / "m" / "mmaction2_tsp.py").read_text(), values)
    assert values["model"] == {"feat_dim": 512, "temporal_dim": 100}
    for part, split in (("train", "train"), ("val", "val"), ("test", "val")):
        data = values[f"{part}_dataloader"]["dataset"]
        assert Path(data["ann_file"]) == tmp_path / "m" / "annotations" / f"anet_anno_{split}.json"
        assert Path(data["data_prefix"]["video"]) == tmp_path / "m" / "csv"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("1024", "16", "15", "800")),
        ({"pad_channels": 0}, ("512", "16", "15", "800")),
        ({"grid_s": 2.56}, ("1024", "64", "25", "300")),
        ({"grid_s": 2.56, "pad_channels": 0}, ("512", "64", "25", "300")),
    ],
)
def test_bmt(
    anet_store: Path, export: Export, tmp_path: Path, options: dict, expected: tuple[str, ...]
) -> None:
    """A cell is timespan / fps seconds, and the loader pads to at least the longest video."""
    report = export(anet_store, "bmt", tmp_path / "b", **options)
    found = switches(report.usage)
    names = ("d_vid", "feature_timespan_in_fps", "fps_at_extraction", "pad_video_feats_up_to")
    assert tuple(found[name] for name in names) == expected
    assert found["video_features_path"] == f"{tmp_path}/b/"
    assert "--modality video" in report.usage and "./tmp" in report.usage
    assert ("captioning_dataset.py" in report.usage) == ("pad_channels" in options)


def test_actionformer_on_activitynet(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    report = export(anet_store, "actionformer", tmp_path / "a", [anet_annotations])
    config = readers.actionformer_config(tmp_path / "a")
    assert config["dataset"] == {
        "json_file": f"{tmp_path}/a/annotations/activitynet.json",
        "feat_folder": f"{tmp_path}/a",
        "file_prefix": "v_",
        "file_ext": ".npy",
        "num_classes": 1,
        "input_dim": 512,
        "feat_stride": 16,
        "num_frames": 16,
        "default_fps": 15,
        "trunc_thresh": 0.5,
        "crop_ratio": [0.9, 1.0],
        "max_seq_len": 192,
        "force_upsampling": True,
    }
    assert config["dataset_name"] == "anet"
    assert (config["train_split"], config["val_split"]) == (["training"], ["validation"])
    assert f"python train.py {tmp_path}/a/actionformer.yaml" in report.usage


def test_actionformer_on_thumos14(
    thumos_store: Path, thumos_annotations: list[Path], export: Export, tmp_path: Path
) -> None:
    """At stride 1 its configuration for I3D (2304 rows) holds half as many seconds as needed."""
    export(thumos_store, "actionformer", tmp_path / "a", thumos_annotations)
    config = readers.actionformer_config(tmp_path / "a")
    assert config["dataset"] == {
        "json_file": f"{tmp_path}/a/annotations/thumos14.json",
        "feat_folder": f"{tmp_path}/a",
        "file_prefix": "",
        "file_ext": ".npy",
        "num_classes": 2,
        "input_dim": 512,
        "feat_stride": 1,
        "num_frames": 16,
        "default_fps": 15,
        "trunc_thresh": 0.5,
        "crop_ratio": [0.9, 1.0],
        "max_seq_len": 4608,
    }
    assert config["dataset_name"] == "thumos"
    assert (config["train_split"], config["val_split"]) == (["validation"], ["test"])


@pytest.mark.parametrize("data_set", ["activitynet", "thumos14"])
def test_opentad(
    anet_store: Path,
    thumos_store: Path,
    anet_annotations: Path,
    thumos_annotations: list[Path],
    export: Export,
    tmp_path: Path,
    data_set: str,
) -> None:
    anet = data_set == "activitynet"
    store = anet_store if anet else thumos_store
    annotations = [anet_annotations] if anet else thumos_annotations
    report = export(store, "opentad", tmp_path / "o", annotations)
    values = readers.opentad_values(tmp_path / "o")
    assert values["annotation_path"] == f"{tmp_path}/o/annotations/{data_set}.json"
    assert values["class_map"] == f"{tmp_path}/o/annotations/category_idx.txt"
    assert values["data_path"] == f"{tmp_path}/o/"
    assert values["block_list"] == f"{tmp_path}/o/missing_files.txt"
    prefix = "v_" if anet else ""
    assert values["load"] == [{"type": "LoadFeats", "feat_format": "npy", "prefix": prefix}]
    assert f"--prefix '{prefix}'" in report.usage
    stride = 16 if anet else 1
    assert f"feature_stride={stride}, sample_stride=1, offset_frames=8, fps=15" in report.usage
    assert values["model"]["projection"]["in_channels"] == 512
    if not anet:
        assert "window_size=512" in report.usage  # 34.1 s, which are 256 rows of its own features
        assert values["dataset"]["train"]["feature_stride"] == 1
        assert values["dataset"]["train"]["fps"] == 15


def test_pdvc(anet_store: Path, export: Export, tmp_path: Path) -> None:
    export(anet_store, "pdvc", tmp_path / "p")
    assert (tmp_path / "p" / "pdvc.yml").read_text().splitlines() == [
        "id: anet_tsp_pdvc",
        "base_cfg_path: cfgs/anet_c3d_pdvc.yml",
        "visual_feature_type: ['tsp']",
        f"visual_feature_folder: ['{tmp_path}/p']",
        "invalid_video_json: []",
        "feature_dim: 512",
    ]


def test_official(anet_store: Path, thumos_store: Path, export: Export, tmp_path: Path) -> None:
    usage = export(anet_store, "official", tmp_path / "a.h5").usage
    assert "(i * 16 + 8) / 15 s" in usage
    usage = export(thumos_store, "official", tmp_path / "t.h5").usage
    assert "(i * 1 + 8) / 15 s" in usage
