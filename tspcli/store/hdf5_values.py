"""Values of attributes: how HDF5 holds them, and as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np


def hdf5_value(value: Any) -> Any:
    """A value as an attribute holds it: texts have a fixed length.

    HDF5 keeps texts of variable length on a heap that has no checksums.
    """
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogateescape")
        return np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded))))
    if isinstance(value, list) and value and all(isinstance(number, float) for number in value):
        # Times are written as they were computed, in four bytes.
        short = np.array(value, np.float32)
        return short if short.tolist() == value else value
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        encoded_all = [text.encode("utf-8", "surrogateescape") for text in value]
        longest = max(1, *map(len, encoded_all))
        return np.array(encoded_all, h5py.string_dtype("utf-8", longest))
    return value


def plain(value: Any) -> Any:
    """An attribute's value as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        if isinstance(value, list):
            return [plain(item) for item in value]
    return value


def plain_attributes(item: h5py.File | h5py.Dataset) -> dict[str, Any]:
    """HDF5 attributes as plain Python values."""
    values = {}
    for name in item.attrs:
        attribute = h5py.h5a.open(item.id, name.encode("utf-8", "surrogateescape"))
        kind = attribute.dtype
        is_plain = kind.kind == "S" or (kind.kind in "iuf" and kind.metadata is None)
        if is_plain and attribute.shape == ():
            # The kinds that a run writes; h5py takes several times as long for all it considers.
            value = np.empty((), kind)
            attribute.read(value)
            values[name] = plain(value)
        else:
            values[name] = plain(item.attrs[name])
    return values


def write_attributes(item: h5py.File | h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write attributes that an item does not have yet, texts with a fixed length."""
    # In one order, whether they come from memory or from a file.
    for name in sorted(attributes):
        value = hdf5_value(attributes[name])
        if isinstance(value, str | int | float) or getattr(value, "shape", None) == ():
            array = np.asarray(value)
            kind = h5py.h5t.py_create(array.dtype, logical=True)
            place = h5py.h5s.create(h5py.h5s.SCALAR)
            encoded = name.encode("utf-8", "surrogateescape")
            h5py.h5a.create(item.id, encoded, kind, place).write(array, mtype=kind)
        else:
            item.attrs[name] = value
