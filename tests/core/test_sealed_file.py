"""A sealed file is complete or refused."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tspcli.core.sealed_file import Footer, SealedWriter, read_footer, seal
from tspcli.errors import StoreError

MAGIC = b"TESTING1"


def footer_of(path: Path, **how: object) -> Footer | None:
    with open(path, "rb") as file:
        return read_footer(file.fileno(), MAGIC, **how)  # type: ignore[arg-type]


def is_refused(path: Path, **how: object) -> bool:
    try:
        footer_of(path, with_digest=True, **how)
    except ValueError:
        return True
    return False


@contextmanager
def files_limited_to(n_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_content_and_footer_come_back(tmp_path: Path) -> None:
    path = tmp_path / "f"
    writer = SealedWriter(path, MAGIC)
    writer.write(b"abc")
    writer.write(memoryview(b"def"))
    assert not path.exists()
    writer.commit({"b": 1, "a": "ü"})
    assert footer_of(path) == Footer({"b": 1, "a": "ü"}, 6)
    assert path.read_bytes() == b'abcdef{"a":"\\u00fc","b":1}' + (20).to_bytes(8, "little") + MAGIC
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_an_aborted_file(tmp_path: Path) -> None:
    writer = SealedWriter(tmp_path / "f", MAGIC)
    writer.write(b"abc")
    writer.abort()
    writer.abort()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [10, 105])
def test_a_full_disk_leaves_nothing(tmp_path: Path, room: int) -> None:
    def write() -> None:
        writer = SealedWriter(tmp_path / "f", MAGIC)
        writer.write(b"x" * 100)
        writer.commit({})

    with files_limited_to(room), pytest.raises(StoreError):
        write()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        SealedWriter(tmp_path / "gone" / "f", MAGIC)
    assert caught.value.data["path"] == tmp_path / "gone" / "f"


@pytest.mark.parametrize("with_digest", [False, True])
def test_every_cut_is_noticed(tmp_path: Path, with_digest: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content" + seal({"a": [1, 2]}, MAGIC, with_digest=with_digest))
    assert footer_of(path, with_digest=with_digest) == Footer({"a": [1, 2]}, 7)
    while size := path.stat().st_size:
        os.truncate(path, size - 1)
        assert footer_of(path, with_digest=with_digest) is None


def test_a_damaged_length_or_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    whole = b"content" + seal({"a": 1}, MAGIC, with_digest=True)
    for at in range(len(b"content"), len(whole) - len(MAGIC)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert is_refused(path)
    path.write_bytes(whole)
    assert not is_refused(path)
    assert is_refused(path, most_bytes=2)
