"""Files of weights, read without running anything that they contain.

The first bytes decide the format: what ``torch.save`` writes (a zip, or a pickle of its own), a
pickle of numpy arrays as JAX programs publish them, or safetensors. A file that needs any class
other than tensors, arrays, plain containers and ``argparse.Namespace`` is refused, with its name.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tspcli.core.text import first_line, parse_json
from tspcli.errors import CheckpointError

_TRUSTED_CLASSES = (argparse.Namespace,)
_TRUSTING = threading.Lock()
_ZIP_START = b"PK\x03\x04"
_TORCH_PICKLE_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_PICKLE_START = b"\x80"
_LONGEST_HEADER = 100_000_000
_SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_FETCH_AGAIN = "Fetch or save it again."
_PLAIN_ARRAYS_ONLY = "Give weights of plain numpy arrays, or a checkpoint of torch tensors."


class WeightFile(NamedTuple):
    """What a file of weights holds.

    Attributes:
        format: ``torch``, ``numpy`` or ``safetensors``.
        content: The object that was saved with torch, nested dicts of numpy arrays, or a dict of
            tensors. Tensors are on the CPU.
    """

    format: Literal["torch", "numpy", "safetensors"]
    content: Any


def read_weight_file(path: Path) -> WeightFile:
    """Read a file of weights in any of the formats; nothing in it is executed.

    Raises:
        CheckpointError: If the file is none of them, is damaged, or needs a class that is not
            trusted (``data["refused"]`` is its name).
    """
    with path.open("rb") as file:
        start = file.read(len(_TORCH_PICKLE_START))
    if not start:
        raise _damaged(path, "it is empty")
    if start.startswith((_ZIP_START, _TORCH_PICKLE_START)):
        return WeightFile("torch", _read_torch(path))
    if start.startswith(_PICKLE_START):
        return WeightFile("numpy", _read_numpy_pickle(path))
    if start[8:9] == b"{":
        return WeightFile("safetensors", _read_safetensors(path))
    raise CheckpointError(
        f"{path} is not a checkpoint: it begins with {start!r}.",
        remedy="Give a checkpoint, a run's folder, or a name that `tsp weights list` shows.",
        path=path,
    )


def _damaged(path: Path, why: object) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or not a checkpoint: {why}.", remedy=_FETCH_AGAIN, path=path
    )


def _refused(path: Path, needed: str, remedy: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is refused: loading it would import and run {needed}.",
        remedy=remedy,
        path=path,
        refused=needed,
    )


def _read_torch(path: Path) -> Any:
    try:
        # What torch trusts is one list per process, which another thread's end of this would empty.
        with _TRUSTING, torch.serialization.safe_globals(list(_TRUSTED_CLASSES)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = _named_class(str(error))
        if needed is None:
            raise _damaged(path, first_line(error)) from error
        remedy = "Save it again as a dict of tensors (torch.save(model.state_dict(), ...))."
        raise _refused(path, needed, remedy) from error
    except Exception as error:  # whatever torch's reader raises for a damaged file
        raise _damaged(path, first_line(error)) from error


def _named_class(message: str) -> str | None:
    """The class that torch's loader refuses, taken from its message."""
    patterns = (
        r"GLOBAL ([\w.]+) was not an allowed global",
        r"unsupported class ([\w.]+)",
        r"add_safe_globals\(\[([\w.]+)\]\)",
        r"Trying to (?:load|call|import)\S* (?:unsupported )?(?:GLOBAL )?([\w]+\.[\w.]+)",
    )
    for pattern in patterns:
        if match := re.search(pattern, message):
            return match.group(1)
    return None


def _read_numpy_pickle(path: Path) -> Any:
    """Nested dicts of numeric arrays. flax's ``FrozenDict`` is read as a dict, without flax."""
    try:
        with path.open("rb") as file:
            value = _numpy_unpickler(file, path).load()
        if isinstance(value, Mapping) and "blobs" in value:
            # Caffe2 puts its configuration beside the arrays.
            value = {"blobs": value["blobs"]}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise _damaged(path, first_line(error)) from error
    return _plain(value, path)


def _numpy_unpickler(file: IO[bytes], path: Path) -> pickle.Unpickler:
    """An unpickler for one file. Its classes are new each time: no pickle can alter the next's."""

    class FrozenDict(dict[Any, Any]):
        def __setstate__(self, state: Any) -> None:
            self.update(state.get("_dict", state))

    def empty_array(*_: Any) -> np.ndarray[Any, Any]:
        # Shape, type and bytes follow in the array's state.
        return np.empty(0, np.uint8)

    def numeric_type(code: Any, *_: Any) -> np.dtype[Any]:
        dtype = np.dtype(str(code))
        if dtype.kind not in "fiub":
            raise CheckpointError(
                f"{path} is refused: it holds arrays of type {dtype}.",
                remedy=_PLAIN_ARRAYS_ONLY,
                path=path,
                refused=str(dtype),
            )
        return dtype

    admitted: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): numeric_type,
        ("flax.core.frozen_dict", "FrozenDict"): FrozenDict,
    }
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        admitted[core, "_reconstruct"] = empty_array

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in admitted:
                return admitted[module, name]
            raise _refused(path, f"{module}.{name}", _PLAIN_ARRAYS_ONLY)

        def persistent_load(self, pid: Any) -> Any:
            raise _refused(path, "objects outside of the file", _PLAIN_ARRAYS_ONLY)

    # Programs in Python 2, such as Caffe2's, pickled the bytes of arrays as strings.
    return Restricted(file, encoding="latin1")


def _plain(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v, path) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value
    raise CheckpointError(
        f"{path} holds a {type(value).__name__} where arrays of numbers are expected.",
        remedy=_PLAIN_ARRAYS_ONLY,
        path=path,
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """A header in JSON (its length before it in 8 bytes), then the tensors' bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        if length > min(len(data) - 8, _LONGEST_HEADER):
            raise ValueError(f"its header of {length} bytes exceeds the file")
        header = parse_json(data[8 : 8 + length])
        tensors = memoryview(data)[8 + length :]
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
        spans = [entry["data_offsets"] for entry in entries.values()]
        if sum(end - begin for begin, end in spans) > len(tensors):
            raise ValueError("its tensors exceed the file")
        return {str(name): _safetensor(entry, tensors) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, first_line(error)) from error


def _safetensor(entry: Mapping[str, Any], data: memoryview) -> Tensor:
    dtype, shape = _SAFETENSORS_TYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
    begin, end = (int(n) for n in entry["data_offsets"])
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or not 0 <= begin <= end <= len(data) or end - begin != n_bytes:
        raise ValueError(f"a tensor of {shape} does not fit bytes {begin} to {end}")
    if not n_bytes:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
