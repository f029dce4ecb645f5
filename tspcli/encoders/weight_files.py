"""The published I3D weights: a pickle of numpy arrays, read without running what it carries."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from tspcli.encoders.backbones.i3d import INCEPTION_WIDTHS
from tspcli.errors import CheckpointError

_BRANCHES = {
    "branch0": "Branch_0/Conv3d_0a_1x1",
    "branch1.0": "Branch_1/Conv3d_0a_1x1",
    "branch1.1": "Branch_1/Conv3d_0b_3x3",
    "branch2.0": "Branch_2/Conv3d_0a_1x1",
    "branch2.1": "Branch_2/Conv3d_0b_3x3",
    "branch3.1": "Branch_3/Conv3d_0b_1x1",
}
_UNITS = {
    "conv_1a": ("Conv3d_1a_7x7",),
    "conv_2b": ("Conv3d_2b_1x1",),
    "conv_2c": ("Conv3d_2c_3x3",),
    **{
        f"{block}.{ours}": (block.capitalize(), theirs)
        for block in INCEPTION_WIDTHS
        for ours, theirs in _BRANCHES.items()
    },
}
"""Our name of each convolution with its batch norm, and the path to it in the file."""


def read_numpy_pickle(path: Path) -> Any:
    """Nested dicts of numeric numpy arrays from a pickle; every other class is refused.

    flax's ``FrozenDict`` is read as a plain dict without flax.

    Raises:
        CheckpointError: If the pickle names anything else (with the name), or is damaged.
    """
    try:
        with path.open("rb") as file:
            value = _numpy_unpickler(file, path).load()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile pickle raises whatever it likes
        raise CheckpointError(
            f"{path} is damaged or no checkpoint: {error}", remedy="Fetch it again."
        ) from error
    return _plain(value, path)


def _numpy_unpickler(file: IO[bytes], path: Path) -> pickle.Unpickler:
    """An unpickler for one file. Its classes are made afresh, so no pickle can alter the next's."""

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
                remedy="Give weights of plain numpy arrays, or a checkpoint of torch tensors.",
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
            raise CheckpointError(
                f"{path} is refused: to load it, {module}.{name} would have to be imported and "
                "run.",
                remedy="Give weights of plain numpy arrays, or a checkpoint of torch tensors.",
            )

        def persistent_load(self, pid: Any) -> Any:
            raise CheckpointError(
                f"{path} is refused: it refers to objects outside of itself.",
                remedy="Give weights of plain numpy arrays, or a checkpoint of torch tensors.",
            )

    return Restricted(file)


def _plain(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v, path) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value
    raise CheckpointError(
        f"{path} holds a {type(value).__name__} where arrays of numbers are expected.",
        remedy="Give weights of plain numpy arrays, or a checkpoint of torch tensors.",
    )


def i3d_state_from_numpy(tree: Any, path: Path) -> dict[str, Tensor]:
    """Turn the published arrays into the state dict of an I3D with its action head.

    Args:
        tree: ``params`` and ``batch_stats`` as nested dicts. Kernels lie (T, H, W, in, out).
        path: For messages.

    Returns:
        Tensors under official names, ``features.``... and ``fc.``.

    Raises:
        CheckpointError: If an array is missing.
    """
    state: dict[str, Tensor] = {}
    for ours, theirs in _UNITS.items():
        kernel = _at(tree, ("params", *theirs, "Conv_0", "kernel"), path)
        shift = _at(tree, ("params", *theirs, "BatchNorm_0", "bias"), path)
        mean = _at(tree, ("batch_stats", *theirs, "BatchNorm_0", "mean"), path)
        variance = _at(tree, ("batch_stats", *theirs, "BatchNorm_0", "var"), path)
        name = f"features.{ours}"
        state[f"{name}.conv.weight"] = _filters(kernel)
        state[f"{name}.bn.weight"] = torch.ones(shift.size)
        state[f"{name}.bn.bias"] = _tensor(shift).flatten()
        state[f"{name}.bn.running_mean"] = _tensor(mean).flatten()
        state[f"{name}.bn.running_var"] = _tensor(variance).flatten()
        state[f"{name}.bn.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    head = ("params", "Logits/Conv3d_0c_1x1", "Conv_0")
    state["fc.weight"] = _filters(_at(tree, (*head, "kernel"), path)).flatten(1)
    state["fc.bias"] = _tensor(_at(tree, (*head, "bias"), path))
    return state


def _filters(kernel: np.ndarray[Any, Any]) -> Tensor:
    return _tensor(kernel).permute(4, 3, 0, 1, 2).contiguous()


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32).reshape(array.shape))


def _at(tree: Any, keys: tuple[str, ...], path: Path) -> np.ndarray[Any, Any]:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            raise CheckpointError(
                f"{path} is no I3D: it has no {'/'.join(keys)}.",
                remedy="Give the Kinetics weights of I3D, or a checkpoint of torch tensors.",
            )
        tree = tree[key]
    if not isinstance(tree, np.ndarray):
        raise CheckpointError(f"{path} is no I3D: {'/'.join(keys)} is no array.")
    return tree
