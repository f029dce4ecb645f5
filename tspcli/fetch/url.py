"""One file from a URL: resumed, verified, and in its place only when it is whole and right.

What has arrived waits in ``.NAME.part`` beside the target. A lock on that file lets one process
download while others wait and then find the finished file.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tspcli.core.files import has_sha256, sync_folder
from tspcli.errors import DownloadError, WeightsError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes in all, None if unknown."""

MIRROR_VARIABLE = "TSPCLI_WEIGHTS_URL"
"""Environment variable with the URL of a folder from which files are taken by name instead."""

_BLOCK = 1 << 18
_LASTING_REFUSALS = (400, 401, 403, 404, 405, 410, 451)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        stall_s: Seconds without a byte after which a connection is given up.
        attempts: Connections that may fail in a row without a byte gained.
        backoff_s: Wait before the second attempt; each further wait is twice as long.
    """

    stall_s: float = 30.0
    attempts: int = 4
    backoff_s: float = 1.0


def download(
    url: str,
    target: Path,
    sha256: str,
    *,
    on_progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download a file unless it is there.

    Args:
        url: http, https or file. With ``TSPCLI_WEIGHTS_URL`` set, the file of the same name in
            that folder is taken instead; its checksum is verified all the same.
        target: Where the file goes.
        sha256: Its sha256, or the first digits of it.
        on_progress: Told how far it is.
        patience: How long to wait.

    Returns:
        ``target``.

    Raises:
        DownloadError: If it does not arrive whole, or with another checksum. What has arrived is
            kept for the next attempt, except where it proved wrong.
    """
    patience = patience or Patience()
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        url = f"{mirror.rstrip('/')}/{target.name}"
    by_hand = f"Get {url} where there is a network, and put it at {target}."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with _open_locked(part, target) as file:
            if file is None:
                return target
            resumed = file.seek(0, os.SEEK_END) > 0
            try:
                _fill(file, url, on_progress, patience, by_hand)
                right = has_sha256(part, sha256)
                if resumed and not right:
                    # The server's file may have changed since the first part was received.
                    file.truncate(0)
                    _fill(file, url, on_progress, patience, by_hand)
                    right = has_sha256(part, sha256)
                os.fsync(file.fileno())
            finally:
                if not os.fstat(file.fileno()).st_size:
                    part.unlink(missing_ok=True)
            if not right:
                part.unlink()
                raise DownloadError(
                    f"What {url} sent has another sha256 than {sha256}..., and was thrown away.",
                    remedy=f"Try again later. {by_hand}",
                )
            part.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}.",
            remedy="Check the free space, or set TSPCLI_HOME to a folder that you may write to.",
        ) from error
    return target


@contextmanager
def _open_locked(part: Path, target: Path) -> Iterator[IO[bytes] | None]:
    """The partial file, held by this process alone; None once another has finished the target."""
    while True:
        if target.is_file():
            yield None
            return
        with part.open("ab") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            # Whoever held the lock before may have renamed or removed the file that we opened.
            if target.is_file() or not _is_same(part, file):
                continue
            yield file
            return


def _is_same(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _fill(
    file: IO[bytes], url: str, on_progress: Progress | None, patience: Patience, by_hand: str
) -> None:
    """Append to ``file`` until the server has no more, over as many connections as it takes."""
    failures = 0
    most = file.seek(0, os.SEEK_END)
    while True:
        try:
            _receive(file, url, on_progress, patience.stall_s)
            return
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            lasting = error.code in _LASTING_REFUSALS
        except (urllib.error.URLError, http.client.HTTPException, _Interrupted) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            lasting = url.startswith("file:")
        except (ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            lasting = False
        except ValueError as error:
            raise WeightsError(f"{url!r} is no URL: {error}.") from error
        size = file.seek(0, os.SEEK_END)
        failures = 1 if size > most else failures + 1
        most = max(most, size)
        if lasting or failures >= patience.attempts:
            name = url.rpartition("/")[2]
            raise DownloadError(f"{name} cannot be downloaded: {reason}.", remedy=by_hand)
        time.sleep(patience.backoff_s * 2 ** (failures - 1))


class _Interrupted(Exception):
    """A connection that ended before all bytes had come."""


def _receive(file: IO[bytes], url: str, on_progress: Progress | None, stall_s: float) -> None:
    """One connection: ask for what is missing and append it."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "tspcli"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=stall_s)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing lies beyond what is here: it is whole already, or longer than it should be.
        if _total(error.headers.get("Content-Range")) == have:
            return
        file.truncate(0)
        raise _Interrupted("the server has less than what had arrived") from error
    with response:
        total: int | None
        if have and response.status == 206:
            start = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
            if start != str(have):
                file.truncate(0)
                raise _Interrupted("the server resumes at another place than asked")
            total = _total(response.headers.get("Content-Range"))
        else:
            # A server that ignores ranges begins anew, and so do we.
            file.truncate(0)
            have = 0
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
        file.seek(0, os.SEEK_END)
        try:
            while block := _read(response):
                file.write(block)
                have += len(block)
                if on_progress is not None:
                    on_progress(have, total)
        finally:
            file.flush()
    if total is not None and have != total:
        raise _Interrupted(f"the connection ended after {have} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK)
    except OSError as error:
        # Named apart from the errors of our own disk.
        raise _Interrupted(f"the connection broke: {error or type(error).__name__}") from error


def _total(content_range: str | None) -> int | None:
    """The full length out of ``bytes 5-9/10`` or ``bytes */10``."""
    length = (content_range or "").rpartition("/")[2]
    return int(length) if length.isdigit() else None
