"""What each reader does with the files it is given, rebuilt from the description of its code.

Indexing, resize and time formula; nothing of the exporter is used here. Every function returns the
rows that the reader works with and the seconds at which it takes them to be.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import torch
import torchvision
import yaml

Seen = tuple[np.ndarray, np.ndarray]


def interpolate(rows: np.ndarray, size: int) -> np.ndarray:
    x = torch.from_numpy(rows.astype(np.float32).T)[None]
    x = torch.nn.functional.interpolate(x, size=size, mode="linear", align_corners=False)
    return x[0].T.numpy()


def gtad_anet(path: Path, info: dict, video: str) -> Seen:
    with h5py.File(path, "r") as file:
        rows = file[video][()]
    rows = torch.Tensor(rows).T
    if rows.shape[0] != 100:  # the loader asks for the channels
        rows = torch.nn.functional.interpolate(
            rows[None], size=100, mode="linear", align_corners=False
        )[0]
    return rows.T.numpy(), steps_of(100) * label_span(info)


def label_span(info: dict) -> float:
    return float(info["feature_frame"]) / info["duration_frame"] * info["duration_second"]


def snippet_span(info: dict) -> float:
    """BMN's and MMAction2's span for proposals."""
    frames = info["duration_frame"]
    return float(frames // 16 * 16) / frames * info["duration_second"]


def steps_of(length: int) -> np.ndarray:
    return (np.arange(length) + 0.5) / length


def bmn(feature_path: str, info: dict, video: str, scale: int = 100) -> Seen:
    # Plain concatenation; the first line is a header, and no column is an index.
    with open(feature_path + "csv_mean_" + str(scale) + "/" + video + ".csv") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=np.float32)
    assert rows.shape[0] == scale  # the sampling matrix of the network is that wide
    return rows, steps_of(scale) * label_span(info)


def mmaction2(folder: str, info: dict, video: str) -> Seen:
    rows = np.loadtxt(f"{folder}/{video}.csv", dtype=np.float32, delimiter=",", skiprows=1)
    return rows, steps_of(len(rows)) * label_span(info)


def gtad_thumos(folder: str, video: str, rate: float) -> Seen:
    files = {
        name: h5py.File(f"{folder}/{name}.h5", "r")
        for name in ("flow_val", "rgb_val", "flow_test", "rgb_test")
    }
    if "val" in video:
        streams = [files["flow_val"][video][::5], files["rgb_val"][video][::5]]
    elif "test" in video:
        streams = [files["flow_test"][video][::5], files["rgb_test"][video][::5]]
    else:
        raise AssertionError("the reader would keep the previous video's features")
    shorter = min(len(stream) for stream in streams)
    rows = np.concatenate([stream[:shorter] for stream in streams], axis=1).astype(np.float32)
    frames = 5 * np.arange(shorter)
    return rows, frames / rate


def bmt(folder: str, video: str) -> np.ndarray:
    rgb = torch.from_numpy(np.load(f"{folder}/{video}_rgb.npy")).float()
    flow = torch.from_numpy(np.load(f"{folder}/{video}_flow.npy")).float()
    assert rgb.shape == flow.shape
    masked = rgb[:, 0] == 1.0
    assert not masked.any()
    return (rgb + flow).numpy()


def bmt_captioning(rows: np.ndarray, duration: float) -> np.ndarray:
    return steps_of(len(rows)) * duration


def bmt_crop(rows: np.ndarray, start: float, end: float, duration: float) -> np.ndarray:
    n = len(rows)
    first, last = int(n * start / duration), int(n * end / duration)
    if first == last:
        if first == n:
            first -= 1
        else:
            last += 1
    return rows[first:last]


def bmt_proposals(rows: np.ndarray, timespan: int, fps: int, pad_to: int) -> np.ndarray:
    assert len(rows) <= pad_to
    return (np.arange(len(rows)) + 0.5) * timespan / fps


def actionformer_anet(config: dict, database: dict, video: str) -> Seen:
    folder = config["feat_folder"]
    if ".hdf5" in folder:
        with h5py.File(folder, "r") as file:
            rows = np.asarray(file[config["file_prefix"] + video][()], dtype=np.float32)
    else:
        path = Path(folder) / f"{config['file_prefix']}{video}{config['file_ext']}"
        rows = np.load(path).astype(np.float32)
    length, fps = config["max_seq_len"], config["default_fps"]
    if config["feat_stride"] > 0:
        stride = ((len(rows) - 1) * config["feat_stride"] + config["num_frames"]) / length
    else:
        stride = database[video]["duration"] * fps / length
    if len(rows) != length:
        rows = interpolate(rows, length)
    return rows, (np.arange(length) * stride + 0.5 * stride) / fps


def actionformer_thumos(config: dict, video: str) -> Seen:
    path = Path(config["feat_folder"]) / f"{config['file_prefix']}{video}{config['file_ext']}"
    rows = np.load(path).astype(np.float32)
    centers = np.arange(len(rows)) * config["feat_stride"] + 0.5 * config["num_frames"]
    return rows, centers / config["default_fps"]


def opentad_resize(folder: str, prefix: str, video: str, duration: float, length: int) -> Seen:
    rows = np.load(f"{folder}/{prefix}{video}.npy").astype(np.float32)
    x = torch.from_numpy(rows.T)[None, :, :, None]
    box = torch.Tensor([[0, 0, 0, 1, x.shape[2]]])
    out = torchvision.ops.roi_align(
        x.half().double(), box.half().double(), output_size=(length, 1), aligned=True
    )
    return out[0, :, :, 0].T.numpy(), steps_of(length) * duration


def opentad_pad(
    folder: str, prefix: str, video: str, stride: int, offset: int, fps: float, *, pad: bool = True
) -> Seen:
    """``pad``: the ActivityNet configurations, which shrink what is longer than 768 rows."""
    rows = np.load(f"{folder}/{prefix}{video}.npy").astype(np.float32)
    snippet, first = float(stride), float(offset)
    if pad and len(rows) > 768:
        snippet *= len(rows) / 768
        first *= len(rows) / 768
        rows = interpolate(rows, 768)
    return rows, (np.arange(len(rows)) * snippet + first) / fps


def pdvc(folder: str, video: str, duration: float, length: int = 100) -> Seen:
    rows = np.load(f"{folder}/{video[0:13]}.npy")
    if len(rows) != length:
        if len(rows) == 1:
            rows = np.stack([rows.reshape(-1)] * length)
        else:
            at = [i * float(len(rows) - 1) / (length - 1) for i in range(length)]
            # Nearest, halves down.
            rows = rows[[int(np.ceil(x - 0.5)) for x in at]]
    return rows, steps_of(length) * duration


def official(path: Path, video: str, stride: int) -> Seen:
    with h5py.File(path, "r") as file:
        assert all(isinstance(item, h5py.Dataset) for item in file.values())
        rows = file[video][:]
    return rows, (np.arange(len(rows)) * stride + 8) / 15


def actionformer_config(folder: Path) -> dict:
    """ActionFormer's configuration as its own reader takes it: YAML over its defaults."""
    values = yaml.safe_load((folder / "actionformer.yaml").read_text())
    if values["dataset"]["file_prefix"] is None:
        values["dataset"]["file_prefix"] = ""
    return values


def opentad_values(folder: Path) -> dict:
    """OpenTAD's configuration without what it inherits."""
    values: dict = {}
    exec((folder / "opentad.py").read_text(), values)
    return values


def opentad_loader(values: dict, part: str) -> dict[str, list[tuple[float, float, str]]]:
    """The videos that a padded loader lists, with their labels in rows of the features.

    Its ``AnetPaddingDataset``: the subset is looked for *inside* the configured word, and labels
    that are too early or empty are left out, with videos that have no other.
    """
    config = values["dataset"][part]
    database = json.loads(Path(config["ann_file"]).read_text())["database"]
    blocked = Path(config["block_list"]).read_text().splitlines()
    classes = Path(config["class_map"]).read_text().splitlines()
    fps, offset, stride = config["fps"], config["offset_frames"], config["feature_stride"]
    assert isinstance(offset, int) and isinstance(stride, int)
    videos = {}
    for name, info in database.items():
        if name in blocked or info["subset"] not in config["subset_name"]:
            continue
        labels = []
        for item in info["annotations"]:
            start, end = (float(second) * fps for second in item["segment"])
            assert item["label"] in classes
            fits = end > start and end > offset and start - offset <= info["duration"] * fps
            if fits or not config["filter_gt"]:
                labels.append(((start - offset) / stride, (end - offset) / stride, item["label"]))
        if labels or config.get("test_mode"):
            videos[name] = labels
    return videos


def opentad_features(values: dict, part: str, video: str) -> np.ndarray:
    """The rows that ``LoadFeats`` reads for a video."""
    (load,) = values["load"]
    assert values["dataset"][part]["pipeline"][0] == load and load["feat_format"] == "npy"
    name = f"{load['prefix']}{video}{load.get('suffix', '')}.npy"
    return np.load(Path(values["dataset"][part]["data_path"]) / name).astype(np.float32)


def actionformer_loader(config: dict, split: str) -> dict[str, tuple[np.ndarray, list]]:
    """The rows and labels, in rows, of the videos of a split, where it does not resize.

    ``thumos14.py``, ``epic_kitchens.py``, ``ego4d.py``, and ``anet.py`` without upsampling.
    """
    data = config["dataset"]
    assert not data.get("force_upsampling")
    database = json.loads(Path(data["json_file"]).read_text())["database"]
    ids = {a["label"]: a["label_id"] for v in database.values() for a in v["annotations"]}
    assert len(ids) == data["num_classes"] and set(ids.values()) == set(range(len(ids)))
    stride, offset = data["feat_stride"], 0.5 * data["num_frames"] / data["feat_stride"]
    found = {}
    for name, info in database.items():
        if info["subset"].lower() not in config[f"{split}_split"]:
            continue
        path = f"{data['feat_folder']}/{data['file_prefix']}{name}{data['file_ext']}"
        rows = np.load(path)
        rows = rows["feats"] if config["dataset_name"] == "epic" else rows
        scale = data["default_fps"] / stride
        labels = [[t * scale - offset for t in a["segment"]] for a in info["annotations"]]
        found[name] = (rows.astype(np.float32), labels)
    return found
