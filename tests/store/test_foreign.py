"""Files of other programs that hold something else than rows: what they hold is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders.refusals import refused
from tspcli.errors import StoreError, StoreMismatchError
from tspcli.store import open_store
from tspcli.store.foreign import TRANSPOSED, look_transposed
from tspcli.store.store_set import StoreSet

TEXT = h5py.string_dtype()
Write = Callable[[h5py.File], object]


def array(data: object, dtype: object = None) -> Write:
    return lambda file: file.create_dataset("v", data=data, dtype=dtype)


def unset(shape: tuple[int, ...], dtype: object) -> Write:
    return lambda file: file.create_dataset("v", shape, dtype)


def put(value: object) -> Write:
    return lambda file: file.__setitem__("v", value)


def group(*names: str) -> Write:
    return lambda file: [file.create_dataset(f"v/{name}", data=np.ones((3, 4))) for name in names]


ENTRIES: dict[str, list[Write]] = {
    "complex": [array(np.ones((3, 4), dtype)) for dtype in (np.complex64, np.complex128, ">c8")],
    "truth": [array(np.ones((3, 4), bool)), array(np.zeros((0, 4), bool)), array(True)],
    "texts": [array(["a", "b"], TEXT), array(np.array([[b"1.5", b"2.5"]])), array("one")],
    "records": [
        array(np.zeros(3, [("rgb", "f4", 4)])),
        array(np.zeros((3, 2), [("x", "f4"), ("y", "f4")])),
        array(np.void(b"\x00pickled")),
    ],
    "ragged": [
        unset(shape, h5py.vlen_dtype(kind))
        for shape, kind in (((3,), np.float32), ((3, 2), np.float64), ((), np.int32))
    ],
    "references": [
        unset((3, 1), h5py.ref_dtype), unset((1,), h5py.ref_dtype),
        unset((2, 2), h5py.regionref_dtype),
    ],
    "group": [group("rgb"), group(*"abcde"), lambda file: file.create_group("v")],
    "axes": [
        array(np.ones(shape))
        for shape in ((1, 3, 4), (3, 4, 1, 1), (10, 3, 4), (3, 4, 7, 7), (1, 1, 1))
    ],
    "vector": [array(np.ones(n, kind)) for n, kind in ((4, "f4"), (0, "f8"), (512, "f2"))],
    "scalar": [array(value) for value in (1.5, np.float32(2), np.int64(3))],
    "width": [array(np.ones((n, 0), "f4")) for n in (0, 1, 120)],
    "empty": [put(h5py.Empty(kind)) for kind in ("f4", "f8", "S9")],
    "type": [put(np.dtype(kind)) for kind in ("f4", "i8", "S4")],
}  # fmt: skip
SHAPES = {"axes", "scalar", "width"}


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        pytest.param(kind, write, id=f"{kind}-{number}")
        for kind, writers in ENTRIES.items()
        for number, write in enumerate(writers)
    ],
)
def test_what_is_no_rows_is_called_by_its_name(tmp_path: Path, kind: str, write: Write) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        write(file)
    with open_store(path) as store:
        with refused(StoreError, path=path, value="v", kind=kind) as caught:
            store["v"]
        assert caught.value.remedy
        if kind != "vector":
            shape = "shape" if kind in SHAPES else kind
            with refused(StoreError, path=path, value="v", kind=shape):
                store.read_vector("v")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i4"])
def test_real_numbers_of_any_precision_are_rows(tmp_path: Path, dtype: str) -> None:
    data = np.arange(12).reshape(3, 4)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v"] = data.astype(dtype)
    with open_store(tmp_path / "f.h5") as store:
        assert store["v"].rows.dtype == np.float32
        np.testing.assert_array_equal(store["v"].rows, data)


@pytest.mark.parametrize("width", [64, 512, 2048])
def test_transposed_features_of_several_videos_are_noticed(tmp_path: Path, width: int) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for number, n_rows in enumerate((30, 17, 30)):
            file[f"v{number}"] = np.ones((width, n_rows), "f4")
    with refused(StoreMismatchError, path=tmp_path / "f.h5", video="v1") as caught:
        StoreSet([tmp_path / "f.h5"])
    assert caught.value.remedy == TRANSPOSED


@pytest.mark.parametrize(
    "shapes", [[(30, 64), (17, 64)], [(30, 64)], [(30, 64), (30, 128)], [(30, 64), (64, 30)], []]
)
def test_other_widths_are_not_called_transposed(shapes: list[tuple[int, int]]) -> None:
    assert not look_transposed(shapes)
