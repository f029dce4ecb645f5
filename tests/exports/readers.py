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


def yaml_block(text: str) -> dict:
    """ActionFormer's flow-style block, as a YAML reader would take it."""
    values = {}
    for line in text.splitlines():
        if ":" not in line or line.endswith("{"):
            continue
        name, value = (part.strip() for part in line.rstrip(",").split(":", 1))
        if value in ("True", "False"):
            values[name] = value == "True"
        elif value == "~":
            values[name] = ""
        else:
            try:
                values[name] = json.loads(value)
            except ValueError:
                values[name] = value
    return values
