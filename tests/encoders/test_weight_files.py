"""Files of weights: every format is read, and nothing that they contain is run."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tspcli.encoders.weight_files import read_weight_file
from tspcli.errors import CheckpointError


class MakesAFolder:
    """A payload: loading its pickle with a careless reader makes a folder."""

    named = r"(posix|nt)\.mkdir"

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.mkdir, (str(self.path),))


class CallsOpen:
    """The same with a builtin that writes a file."""

    named = r"(io|builtins|_io)\.open"

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (open, (self.path, "w"))


def refused_by(path: Path) -> str:
    """The class for which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_weight_file(path)
    assert caught.value.data["path"] == path
    return str(caught.value.data["refused"])


def content_of_a_run() -> dict[str, Any]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    args = argparse.Namespace(backbone="tiny", lr_milestones=[4, 6])
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return {**state, "epoch": 5, "args": args}


def test_threads_read_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(content_of_a_run(), path)
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(read_weight_file, [path] * 60):
            assert read.content["args"].backbone == "tiny"


@pytest.mark.parametrize("payload", [MakesAFolder, CallsOpen])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["top", "args"])
def test_code_is_refused_and_not_run(
    tmp_path: Path, payload: Any, zipped: bool, place: str
) -> None:
    trace = tmp_path / "written"
    content = content_of_a_run()
    if place == "top":
        content["surprise"] = payload(trace)
    else:
        content["args"].surprise = payload(trace)
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert re.fullmatch(payload.named, refused_by(path))
    assert not trace.exists()


def test_the_payload_would_work(tmp_path: Path) -> None:
    """The tests here would notice: a careless reader does what the payload says."""
    trace = tmp_path / "written"
    pickle.loads(pickle.dumps(MakesAFolder(trace)))
    assert trace.exists()


def test_trusted_classes_are_trusted_only_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(content_of_a_run(), path)
    found = read_weight_file(path)
    assert found.format == "torch" and found.content["args"].lr_milestones == [4, 6]
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_numpy_scalars_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"accuracy": np.float64(0.5)}, path)
    assert re.fullmatch(r"numpy\S*\.scalar", refused_by(path))


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_truncated_files(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError) as caught:
        read_weight_file(path)
    assert caught.value.data["path"] == path and "refused" not in caught.value.data


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match="b'hello'"):
        read_weight_file(tmp_path / "text.pth")


def frozen(content: dict[str, Any]) -> bytes:
    """A pickle that holds ``content`` in flax's FrozenDict, made without flax."""

    class FrozenDict:
        def __init__(self) -> None:
            self._dict = content

    FrozenDict.__module__, FrozenDict.__qualname__ = "flax.core.frozen_dict", "FrozenDict"

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python
        def save_global(self, obj: Any, name: str | None = None) -> None:
            if obj is FrozenDict:
                self.write(b"cflax.core.frozen_dict\nFrozenDict\n")
                return
            super().save_global(obj, name)

        dispatch: ClassVar[Any] = {**pickle._Pickler.dispatch, type: save_global}  # type: ignore[attr-defined]  # likewise

    buffer = io.BytesIO()
    Pickler(buffer, protocol=4).dump(FrozenDict())
    return buffer.getvalue()


def test_frozen_dicts_are_read_without_flax(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(frozen({"a": np.arange(3, dtype=np.float32)}))
    found = read_weight_file(path)
    assert found.format == "numpy" and type(found.content) is dict
    assert found.content["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("payload", [MakesAFolder, CallsOpen])
def test_numpy_pickles_with_code_are_refused_and_not_run(tmp_path: Path, payload: Any) -> None:
    trace = tmp_path / "written"
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps({"params": payload(trace)}, protocol=4))
    assert re.fullmatch(payload.named, refused_by(path))
    assert not trace.exists()


def test_arrays_of_objects_cannot_carry_code_either(tmp_path: Path) -> None:
    trace = tmp_path / "written"
    path = tmp_path / "x.ckpt"
    array = np.empty(1, dtype=object)
    for value in (MakesAFolder(trace), 1):
        array[0] = value
        path.write_bytes(pickle.dumps({"a": array}, protocol=4))
        refused_by(path)
    assert not trace.exists()


def test_pickles_of_anything_but_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    for content in (pickle.dumps({"a": "text"}, protocol=4), b"\x80\x04\x95"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read_weight_file(path)
        assert caught.value.data["path"] == path


def safetensors(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors(tmp_path: Path) -> None:
    numbers = torch.arange(6, dtype=torch.float32)
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    header = {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
        "count": {"dtype": "I64", "shape": [], "data_offsets": [28, 36]},
        "nothing": {"dtype": "F16", "shape": [0, 4], "data_offsets": [36, 36]},
    }
    data = numbers.numpy().tobytes() + half.view(torch.int16).numpy().tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(header, data + struct.pack("<q", 7)))
    found = read_weight_file(path)
    assert found.format == "safetensors" and list(found.content) == list(header)[1:]
    assert torch.equal(found.content["a.weight"], numbers.view(2, 3))
    assert torch.equal(found.content["b"], half)
    assert found.content["count"].item() == 7
    assert found.content["nothing"].shape == (0, 4)


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"{" * 5000,
        b"{\xff}",
        {"a": entry(data_offsets=[0, 12])},
        {"a": entry(data_offsets=[8, 0])},
        {"a": entry(data_offsets=[-8, 0])},
        {"a": entry(shape=[3])},
        {"a": entry(shape=[-1, -2])},
        {"a": entry(shape=[2**40, 2**40])},
        {"a": entry(dtype="F4")},
        {"a": entry(shape=None)},
        {"a": [1]},
        {"a": entry(), "b": entry(), "c": entry()},
    ],
)
def test_damaged_safetensors(tmp_path: Path, header: Any) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(header, bytes(8)))
    with pytest.raises(CheckpointError) as caught:
        read_weight_file(path)
    assert caught.value.data["path"] == path


def test_a_safetensors_header_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError):
        read_weight_file(path)
