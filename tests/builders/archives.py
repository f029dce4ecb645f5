"""Small packages made by hand, and pip pointed at them alone."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> str:
    """Write a wheel with ``files`` and return its sha256."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return sha256_of(path.read_bytes())


def write_sdist(folder: Path, name: str, version: str, files: dict[str, bytes]) -> str:
    """Write a source archive with ``files`` below its top folder and return its sha256."""
    path = folder / f"{name}-{version}.tar.gz"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    with tarfile.open(path, "w:gz") as archive:
        for member, content in {"PKG-INFO": metadata, **files}.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{member}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return sha256_of(path.read_bytes())


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def use_index(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let pip see the archives of ``folder`` and no index."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def use_no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let pip find nothing, as without a network."""
    empty = tmp_path / "no-packages"
    empty.mkdir(exist_ok=True)
    use_index(monkeypatch, empty)
