"""What files of other programs hold where a video's rows are expected, and what to do about it.

Rows are numbers of shape (rows, width): real ones of any precision. Everything else is refused with
its name: a cast would drop the imaginary half of complex numbers without a word, and a transposed
array would give each channel a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py

from tspcli.errors import StoreError
from tspcli.store.hdf5_file import LAYOUT

_SHOWN = 3
_ONE_VECTOR = (
    "It looks like a file of global features, one vector per video: `tsp inspect` shows it, "
    "`tsp pretrain --gvf` takes it."
)
TRANSPOSED = (
    "They look transposed, (width, rows): store `array.T` of each, so that rows are in time order."
)
_MORE_AXES = (
    "Average over the axes that are neither time nor channels (crops, places in the picture), or "
    "store each crop in a file of its own."
)
_KINDS = {
    "b": ("truth values", "Convert them to numbers if they are features."),
    "c": (
        "complex numbers",
        "Store their magnitudes, or real and imaginary parts next to each other.",
    ),
    "S": ("texts", LAYOUT),
    "V": ("records or bytes", "Store the numbers of its fields as one array."),
}


def require_rows(item: Any, key: str, path: Path) -> None:
    """Raise unless an entry of an HDF5 file holds the rows of a video, shape (N, D).

    Raises:
        StoreError: With the video as ``value`` and what the entry is as ``kind`` in its data.
    """
    found = _not_numbers(item) or _wrong_shape(item)
    if found is not None:
        _refuse(path, key, *found, expected="rows of features")


def require_vector(item: Any, key: str, path: Path) -> None:
    """Raise unless an entry of an HDF5 file is one vector, shape (D,).

    Raises:
        StoreError: As :func:`require_rows`.
    """
    found = _not_numbers(item)
    if found is None and item.ndim != 1:
        remedy = "Turn a feature store into global features with `tsp gvf --features`."
        found = "shape", f"of shape {item.shape}", remedy
    if found is not None:
        _refuse(path, key, *found, expected="one vector")


def look_transposed(shapes: Iterable[tuple[int, int]]) -> bool:
    """Whether the arrays of several videos seem to be (width, rows).

    That is so where they agree in the first axis and differ in the second, which is shorter in one
    at least: videos have different lengths, and features one width.
    """
    known = set(shapes)
    firsts = {first for first, _ in known}
    return len(known) > 1 and len(firsts) == 1 and any(second < first for first, second in known)


def _refuse(path: Path, key: str, kind: str, what: str, remedy: str, *, expected: str) -> None:
    raise StoreError(
        f"{path}: the entry {key!r} is {what}, not {expected}.",
        remedy=remedy,
        path=path,
        value=key,
        kind=kind,
    )


def _not_numbers(item: Any) -> tuple[str, str, str] | None:
    """What an entry is that is no array of real numbers: (kind, in words, remedy)."""
    if isinstance(item, h5py.Group):
        names = list(item)
        shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
        return "group", f"a group ({shown})" if names else "an empty group", LAYOUT
    if not isinstance(item, h5py.Dataset):
        return "type", "a data type", LAYOUT
    if item.shape is None:
        return "empty", "empty", LAYOUT
    dtype = item.dtype
    if dtype.kind == "O":
        if h5py.check_string_dtype(dtype) is not None:
            return "texts", "texts", LAYOUT
        if h5py.check_vlen_dtype(dtype) is not None:
            what = "rows of different lengths"
            return "ragged", what, "Store one array per video, with rows of one length."
        return "references", "references to other objects, as MATLAB's cell arrays are", LAYOUT
    if dtype.kind in _KINDS:
        what, remedy = _KINDS[dtype.kind]
        return what.split()[0], f"{what} ({dtype})", remedy
    return None


def _wrong_shape(item: h5py.Dataset) -> tuple[str, str, str] | None:
    """How an array of numbers is not of shape (N, D): (kind, in words, remedy)."""
    shape = tuple(item.shape)
    if len(shape) == 2:
        return ("width", f"of shape {shape}", "Leave the video out.") if not shape[1] else None
    if not shape:
        return "scalar", "one number", LAYOUT
    if len(shape) == 1:
        return "vector", f"of shape {shape}", _ONE_VECTOR
    if len(longer := [n for n in shape if n != 1]) == 2:
        remedy = f"Drop its axes of length 1: store `array.reshape({longer[0]}, {longer[1]})`."
        return "axes", f"of shape {shape}", remedy
    return "axes", f"of shape {shape}", _MORE_AXES
