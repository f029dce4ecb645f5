"""Rows as others host them, arrays in files and folders, opened as a store to compare with.

Nothing that would run code is loaded: numpy's files without pickled objects, and what the caller's
reader takes of torch's files and pickles.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.core.video_names import VIDEO_SUFFIXES, pair_names, store_key
from tspcli.errors import StoreError
from tspcli.sampling import Sampling
from tspcli.store.foreign import require_rows
from tspcli.store.store import FeatureStore, open_store

SUFFIXES = frozenset({".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle"})
ROW_NAMES = ("features", "feats", "arr_0")
"""What a file of one video calls its rows; the first that it has counts."""

_SHOWN = 5
_NO_ROWS = np.zeros((0, 1), np.float32)

Read = Callable[[Path], Any]


def is_hosted(path: Path) -> bool:
    """Whether a path is a folder, or a file of arrays, and not a store."""
    return path.is_dir() or path.suffix.lower() in SUFFIXES


@contextmanager
def open_hosted(
    path: Path, like: FeatureStore, read: Read, *, sampling: Sampling | None = None
) -> Iterator[FeatureStore]:
    """Open hosted rows as a store, with the videos of another store; one is in memory at a time.

    A file holds one video, called as the file is, or a dict of many; a folder has a file per video.
    Rows are (rows, width) or (width, rows), whichever fits the width of ``like``, of any precision.
    Of videos that ``like`` lacks the name is there, without rows.

    Args:
        path: The file or folder.
        like: The store that the rows are to be compared with.
        read: Reads a file of torch or a pickle into arrays, tensors and dicts of them.
        sampling: The times of the rows.

    Raises:
        StoreError: If a file cannot be read, or holds something else.
    """
    with tempfile.TemporaryDirectory(prefix="tsp-hosted-") as folder:
        copy = Path(folder) / "rows.h5"
        with h5py.File(copy, "w") as file:
            for name, array in _videos(path, like, read):
                key = store_key(name)
                if key in file:
                    raise StoreError(f"{path} holds {name!r} twice.", path=path, value=name)
                file.create_dataset(key, data=array)
                if array is not _NO_ROWS:
                    require_rows(file[key], key, path)
        with open_store(copy, sampling=sampling) as store:
            store.path = path
            yield store


def _videos(path: Path, like: FeatureStore, read: Read) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    if path.is_dir():
        files = {
            _name(file): file
            for file in sorted(path.iterdir())
            if file.is_file() and file.suffix.lower() in SUFFIXES
        }
        if not files:
            raise StoreError(
                f"{path} has no files of features ({', '.join(sorted(SUFFIXES))}).", path=path
            )
        keys = pair_names(list(files), set(like))
        for name, file in files.items():
            if name not in keys:
                yield name, _NO_ROWS
                continue
            array = _only(_content(file, read), file)
            yield name, _oriented(array, like[keys[name]].dim)
        return
    content = _content(path, read)
    if isinstance(content, Mapping):
        names = [str(name) for name in content]
        keys = pair_names(names, set(like))
        if keys:
            for name, array in zip(names, content.values(), strict=True):
                if name not in keys:
                    yield name, _NO_ROWS
                else:
                    yield name, _oriented(_array(array, path), like[keys[name]].dim)
            return
    # One video, called as the file is; in a store of one video there is no question which.
    name = _name(path)
    found = pair_names([name], set(like)).get(name)
    if found is None and len(like) == 1:
        name = found = next(iter(like))
    width = 0 if found is None else like[found].dim
    yield name, _oriented(_only(content, path), width)


def _name(file: Path) -> str:
    """The name of a file's video: ``v_a`` of ``v_a.npy`` and of ``v_a.mp4.npy``."""
    inner = Path(file.stem)
    return inner.stem if inner.suffix.lower() in VIDEO_SUFFIXES else file.stem


def _content(path: Path, read: Read) -> Any:
    """What a file holds: an array, or a mapping."""
    if path.suffix.lower() not in (".npy", ".npz"):
        return read(path)
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"{path} cannot be read: {error}",
            remedy="Pickled objects inside numpy's files are not loaded, because that would run "
            "code: save plain arrays."
            if "allow_pickle" in str(error)
            else None,
            path=path,
        ) from error


def _only(content: Any, path: Path) -> npt.NDArray[Any]:
    """The rows in a file of one video."""
    if isinstance(content, Mapping):
        named = [name for name in ROW_NAMES if name in content]
        if not named and len(content) != 1:
            names = ", ".join(repr(str(name)) for name in list(content)[:_SHOWN])
            raise StoreError(
                f"{path} holds {len(content)} entries ({names}), of which none is a video to "
                f"compare with, or called {' or '.join(ROW_NAMES[:2])}.",
                path=path,
            )
        content = content[named[0]] if named else next(iter(content.values()))
    return _array(content, path)


def _array(value: Any, path: Path) -> npt.NDArray[Any]:
    """An array of an array or a tensor, without axes of length one beyond two."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if not isinstance(value, np.ndarray):
        raise StoreError(
            f"{path} holds {type(value).__name__} where rows of features are expected.", path=path
        )
    while value.ndim > 2 and 1 in value.shape:
        value = value.squeeze(value.shape.index(1))
    return value


def _oriented(array: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Rows in time order, shape (rows, width), if one axis of the array is of that width."""
    if array.ndim == 2 and array.shape[1] != width and array.shape[0] == width:
        return np.ascontiguousarray(array.T)
    return array
