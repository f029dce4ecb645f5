"""The parsers that are ours, each with a good file to begin from."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders.mutations import mutate_bytes, mutate_json, mutate_text, spoil_value
from tspcli.errors import TspError

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Parser:
    """One of our parsers.

    Attributes:
        name: For reports.
        suffix: Of its files.
        read: Reads a file to the end.
        good: The content of good files.
        mutate: How content of this kind goes bad.
    """

    name: str
    suffix: str
    read: Callable[[Path], Any]
    good: Callable[[Path], list[bytes]]
    mutate: Mutate


def complaint(parser: Parser, path: Path) -> str | None:
    """What is wrong with how a parser takes a file; None if it reads it or says why not.

    Anything but a :class:`TspError` is a traceback on the user's screen.
    """
    try:
        parser.read(path)
    except TspError as error:
        if not error.message.strip():
            return "an error without a message"
    except Exception as error:  # a fault, which the test tells
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def _text(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in texts]


def _json(*values: Any) -> Callable[[Path], list[bytes]]:
    return lambda folder: [json.dumps(value).encode() for value in values]


ACTIVITYNET = {
    "version": "1.3",
    "database": {
        "a": {"subset": "training", "duration": 12.5, "url": "x", "resolution": "3x4",
              "annotations": [{"segment": [0.5, 3.0], "label": "run"}]},
        "b": {"subset": "validation", "duration": 8, "annotations": []},
    },
    "taxonomy": [{"nodeName": "run", "nodeId": 1, "parentName": "Root", "parentId": 0}],
}  # fmt: skip
BSN = {"v_a": {"duration_second": 9.5, "duration_frame": 285, "feature_frame": 272, "fps": 30.0,
               "annotations": [{"segment": [1.0, 2.0], "label": "run"}]}}  # fmt: skip
CAPTIONS = {"v_a": {"duration": 9.5, "timestamps": [[0, 2.5]], "sentences": ["One runs."]}}
RESULTS = {"version": "x", "external_data": {}, "results": {
    "a": [{"segment": [0.0, 1.5], "label": "run", "score": 0.5}], "b": []}}  # fmt: skip
TSP_TABLE = (
    "filename,fps,video-frames,video-duration,t-start,t-end,action-label,temporal-region-label,"
    "video-name\na.mp4,30,300,10.0,1.0,2.5,run,Action,a\na.mp4,30,300,10.0,2.5,10.0,,No action,a\n"
)
METADATA = "filename,fps,video-frames,video-duration,is-decodable\na.mp4,30.0,300,10.0,True\n"
TABLE = "video,start,end,label,subset\na.mp4,1.5,1:02.5,run,training\nb,0,2,jump,validation\n"
BMT = (
    "video_id\tcaption\tstart\tend\tduration\tphase\tidx\nv_a\tOne runs.\t0.0\t2.5\t9.5\tval_1\t0\n"
)
VIDEO_INFO = "video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_a,285,9.5,30,30,training,272\n"
GTAD = "video,type,typeIdx,start,end,startFrame,endFrame\nvideo_test_1,Dive,3,1.0,2.0,30,60\n"
NOTE = {"host": "h", "pid": 1, "started": "x"}
REPORT = {"out": "f.h5", "settings": {}, "counts": {}, "videos": [
    {"key": "a", "status": "failed", "reason": "missing", "detail": "gone"}]}  # fmt: skip


def parsers() -> list[Parser]:
    """All of them."""
    from tspcli.annotations import (
        read_actions,
        read_annotations,
        read_groundtruth,
        read_label_mapping,
        read_metadata,
    )
    from tspcli.localization.results import read_results
    from tspcli.video import list_videos

    return [
        Parser("annotations in JSON", ".json", read_annotations,
               _json(ACTIVITYNET, BSN, CAPTIONS), mutate_json),
        Parser("annotations in tables", ".csv", read_annotations,
               _text(TSP_TABLE, METADATA, BMT, VIDEO_INFO, GTAD, TABLE), mutate_text),
        Parser("thumos14", ".txt", _in_folder(read_actions, "Run_val.txt"),
               _text("video_validation_0000001  1.5 2.5\nvideo_validation_0000002 3 4\n"),
               mutate_text),
        Parser("tables for training", ".csv", read_actions, _text(TABLE), mutate_text),
        Parser("ground truth", ".csv", read_groundtruth, _text(TSP_TABLE), mutate_text),
        Parser("label mapping", ".json", read_label_mapping,
               _json(["run", "jump"]), mutate_json),
        Parser("video metadata", ".csv", read_metadata, _text(METADATA), mutate_text),
        Parser("actions in JSON", ".json", read_actions, _json(ACTIVITYNET, BSN), mutate_json),
        Parser("results", ".json", read_results, _json(RESULTS), mutate_json),
        Parser("lists of videos", ".txt", list_videos, _text("a.mp4\n# no\n\nb/c.mkv\n"),
               mutate_text),
        Parser("report of a run", ".json", _report, _json(REPORT), mutate_json),
        Parser("note in a lock", ".json", _lock_note, _json(NOTE), mutate_json),
        *_toml_parsers(),
        *_binary_parsers(),
    ]  # fmt: skip


def _toml_parsers() -> list[Parser]:
    from importlib import resources

    from tspcli.encoders.weights import read_registry, weights_folder
    from tspcli.pretraining.run_state import read_run_recipe
    from tspcli.pretraining.training_log import EpochResult, read_results
    from tspcli.pretraining.training_recipe import load_recipe
    from tspcli.recipes.catalog import recipe_names

    recipes = [
        resources.files("tspcli.recipes").joinpath("training").joinpath(f"{name}.toml").read_bytes()
        for name in recipe_names("training")
    ]

    def run_recipe(folder: Path) -> list[bytes]:
        from tspcli.core.settings import to_toml
        from tspcli.pretraining.training_recipe import Recipe

        return [to_toml({**Recipe().to_dict(), "tool_version": "0.1.0"}).encode()]

    def epochs(folder: Path) -> list[bytes]:
        from dataclasses import asdict

        return [
            json.dumps(
                asdict(
                    EpochResult(
                        0, {"loss": 0.5}, {"loss": 0.5}, 0.5, True, {"fc": 0.1}, 3.0, 1.0, 2.0, 1.0
                    )
                )
            ).encode()
        ]

    return [
        Parser("recipe", ".toml", load_recipe, lambda folder: recipes, mutate_text),
        Parser("recipe of a run", ".toml", _in_folder(read_run_recipe, "recipe.toml"), run_recipe,
               mutate_text),
        Parser("epochs of a run", ".jsonl", read_results, epochs, mutate_json),
        Parser("registry of weights", ".json", read_registry,
               lambda folder: [(weights_folder() / "registry.json").read_bytes()], mutate_json),
    ]  # fmt: skip


def _binary_parsers() -> list[Parser]:
    from tspcli.encoders.checkpoints import load_checkpoint
    from tspcli.localization.localizer import load_localizer
    from tspcli.pretraining.clip_cache_file import CachedVideo
    from tspcli.store.index import read_index
    from tspcli.store.parts import part_name, read_part

    def read_cache(path: Path) -> None:
        cached = CachedVideo(path)
        try:
            for start in range(0, min(cached.n_samples, 40), 8):
                cached.read(start, 8)
        finally:
            cached.close()

    return [
        Parser("part", ".part", _named(read_part_rows(read_part), part_name("v")), _parts,
               mutate_bytes),
        Parser("footer of a part", ".part", _named(read_part_rows(read_part), part_name("v")),
               _parts, _in_footer),
        Parser("index of a store", ".h5", read_index, _stores, mutate_bytes),
        Parser("index of a store, resealed", ".h5", read_index, _stores, _in_index),
        Parser("checkpoint", ".pth", load_checkpoint, _checkpoints, mutate_bytes),
        Parser("content of a checkpoint", ".pth", _built(load_checkpoint), _checkpoints,
               _in_checkpoint),
        Parser("content of a localization checkpoint", ".pth", load_localizer, _localizers,
               _in_checkpoint),
        Parser("numpy pickle", ".pkl", load_checkpoint, _numpy_pickles, mutate_bytes),
        Parser("localization checkpoint", ".pth", load_localizer, _localizers, mutate_bytes),
        Parser("clip cache", ".clips", read_cache, _caches, mutate_bytes),
    ]  # fmt: skip


def read_part_rows(read_part: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A part's footer, then its rows."""
    return lambda path: read_part(path).rows().sum()


def _in_folder(read: Callable[[Path], Any], name: str) -> Callable[[Path], Any]:
    def read_it(path: Path) -> Any:
        folder = path.with_name(f"{path.name}.folder")
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
        return read(folder)

    return read_it


def _named(read: Callable[[Path], Any], name: str) -> Callable[[Path], Any]:
    def read_it(path: Path) -> Any:
        target = path.with_name(name)
        target.write_bytes(path.read_bytes())
        return read(target)

    return read_it


def _report(path: Path) -> Any:
    from tspcli.analysis.inspect import read_failures

    store = path.with_name("f.h5")
    store.with_name("f.h5.report.json").write_bytes(path.read_bytes())
    return read_failures(store)


def _lock_note(path: Path) -> Any:
    import fcntl
    import os

    from tspcli.core.run_dir import one_writer
    from tspcli.errors import StoreLockedError

    store = path.with_name("locked.h5")
    lock = store.with_name("locked.h5.lock")
    lock.write_bytes(path.read_bytes())
    handle = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            with one_writer(store):
                raise AssertionError("two hold one lock")
        except StoreLockedError:
            return None
    finally:
        os.close(handle)


def _parts(folder: Path) -> list[bytes]:
    from tspcli.store.parts import PartWriter

    place = folder / "parts"
    place.mkdir(exist_ok=True)
    writer = PartWriter(place, "v", 4, "ab" * 32)
    writer.append(np.arange(24, dtype=np.float32).reshape(6, 4))
    part = writer.commit({"duration_s": 3.0, "warnings": "[]"})
    return [part.path.read_bytes()]


def _in_footer(data: bytes, rng: random.Random) -> bytes:
    """A footer that is spoilt and says its length rightly."""
    import struct

    length = struct.unpack("<Q", data[-16:-8])[0]
    footer = mutate_json(data[-16 - length : -16], rng)
    return data[: -16 - length] + footer + struct.pack("<Q", len(footer)) + data[-8:]


def _stores(folder: Path) -> list[bytes]:
    from tests.builders.damaged_stores import small_store

    return [small_store(folder / "index.h5", 2).read_bytes()]


def _in_index(data: bytes, rng: random.Random) -> bytes:
    """An index that is spoilt and has the right checksum, as somebody who means harm makes it."""
    import hashlib
    import struct

    length = struct.unpack("<Q", data[-48:-40])[0]
    text = mutate_json(data[-48 - length : -48], rng)
    tail = struct.pack("<Q32s8s", len(text), hashlib.sha256(text).digest(), b"TSPINDEX")
    return data[: -48 - length] + text + tail


def _checkpoints(folder: Path) -> list[bytes]:
    import io

    import torch

    from tspcli.encoders.checkpoints import save_checkpoint
    from tspcli.encoders.tsp_model import Heads, TspModel

    path = folder / "good.pth"
    save_checkpoint(path, TspModel("tiny", Heads()), backbone="tiny")
    legacy = io.BytesIO()
    state = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    return [path.read_bytes(), legacy.getvalue()]


def _built(load_checkpoint: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda path: load_checkpoint(path).build_model()


def _in_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """A whole file whose content is not what it should be."""
    import io

    import torch

    content = torch.load(io.BytesIO(data), weights_only=False)
    spoilt = io.BytesIO()
    torch.save(spoil_value(content, rng), spoilt)
    return spoilt.getvalue()


def _numpy_pickles(folder: Path) -> list[bytes]:
    import pickle

    tree = {"params": {"a": {"kernel": np.ones((1, 2), np.float32)}}, "batch_stats": {}}
    return [pickle.dumps(tree, protocol=4)]


def _localizers(folder: Path) -> list[bytes]:
    from tspcli.localization.boundary_matching import Bmn
    from tspcli.localization.localize_config import BmnConfig, TrainConfig
    from tspcli.localization.localizer import Localizer, localizer_state, save

    small = BmnConfig(
        temporal_scale=8, n_samples=2, base_channels=4, hidden_channels=4, proposal_channels=4,
        map_channels=4,
    )  # fmt: skip
    config = TrainConfig(model=small)
    save(folder / "loc.pth", localizer_state(Localizer(Bmn(4, config.model), config)))
    return [(folder / "loc.pth").read_bytes()]


def _caches(folder: Path) -> list[bytes]:
    from tspcli.pretraining.clip_cache import CacheSettings
    from tspcli.pretraining.clip_cache_file import CacheWriter, encode_frame
    from tspcli.sampling import Sampling
    from tspcli.sampling.pixels import FrameSpec, ResizeSpec

    files = []
    for codec in ("jpeg", "raw"):
        settings = CacheSettings(Sampling(), FrameSpec(ResizeSpec(12, 16)), codec)
        writer = CacheWriter(folder / f"{codec}.clips", settings.to_dict())
        for number in range(20):
            pixels = np.full((12, 16, 3), number * 10, np.uint8)
            writer.append(*encode_frame(pixels, codec), pixels.shape)
        writer.commit({"video": "v.mp4"})
        files.append((folder / f"{codec}.clips").read_bytes())
    return files
