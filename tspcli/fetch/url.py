"""One file from a URL: resumed, verified, and in its place only once it is complete and right.

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

from tspcli.core.files import explain_write_errors, has_sha256, sync_folder
from tspcli.errors import DownloadError, WeightsError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes in all, None if unknown."""

MIRROR_VARIABLE = "TSPCLI_WEIGHTS_URL"
"""Environment variable with the URL of a folder from which files are taken by name instead."""

_BLOCK = 1 << 18
_PERMANENT_REFUSALS = (400, 401, 403, 404, 405, 410, 451)


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
        on_progress: Called with how much has arrived.
        patience: How long to wait.

    Returns:
        ``target``.

    Raises:
        DownloadError: If it does not arrive completely, or with another checksum. What has arrived
            is kept for the next attempt, except where it proved wrong.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        url = f"{mirror.rstrip('/')}/{target.name}"
    source = _Source(url, target, on_progress, patience or Patience())
    with explain_write_errors(target, resumable=True, error=DownloadError):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with _open_locked(part, target) as file:
            if file is None:
                return target
            resumed = file.seek(0, os.SEEK_END) > 0
            try:
                source.append_to(file)
                right = has_sha256(part, sha256)
                if resumed and not right:
                    # The server's file may have changed since the first part was received.
                    file.truncate(0)
                    source.append_to(file)
                    right = has_sha256(part, sha256)
                os.fsync(file.fileno())
            finally:
                if not os.fstat(file.fileno()).st_size:
                    part.unlink(missing_ok=True)
            if not right:
                part.unlink()
                raise DownloadError(
                    f"What {url} sent does not have the sha256 {sha256}, and was deleted.",
                    remedy=f"Try again later. {source.by_hand}",
                    url=url,
                    sha256=sha256,
                )
            part.replace(target)
            sync_folder(target.parent)
    return target


@contextmanager
def _open_locked(part: Path, target: Path) -> Iterator[IO[bytes] | None]:
    """The partial file, held by this process alone; None once another has finished the target."""
    while not target.is_file():
        with part.open("ab") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            # Whoever held the lock before may have renamed or removed the file that we opened.
            if target.is_file() or not _is_same(part, file):
                continue
            yield file
            return
    yield None


def _is_same(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


class _InterruptedError(Exception):
    """A connection that ended before all bytes had come."""


class _Source:
    """A URL and how to fetch from it."""

    def __init__(
        self, url: str, target: Path, on_progress: Progress | None, patience: Patience
    ) -> None:
        self.url = url
        self.by_hand = f"Get {url} where there is a network, and put it at {target}."
        self._on_progress = on_progress
        self._patience = patience

    def append_to(self, file: IO[bytes]) -> None:
        """Append until the server has no more, over as many connections as it takes."""
        failures = 0
        most = file.seek(0, os.SEEK_END)
        while True:
            try:
                self._receive(file)
                return
            except urllib.error.HTTPError as error:
                reason = f"the server answers {error.code} {error.reason}"
                permanent = error.code in _PERMANENT_REFUSALS
            except (urllib.error.URLError, http.client.HTTPException, _InterruptedError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                permanent = self.url.startswith("file:")
            except (ConnectionError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                permanent = False
            except ValueError as error:
                raise WeightsError(f"{self.url!r} is not a URL: {error}.", url=self.url) from error
            size = file.seek(0, os.SEEK_END)
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if permanent or failures >= self._patience.attempts:
                name = self.url.rpartition("/")[2]
                raise DownloadError(
                    f"{name} cannot be downloaded: {reason}.", remedy=self.by_hand, url=self.url
                )
            time.sleep(self._patience.backoff_s * 2 ** (failures - 1))

    def _receive(self, file: IO[bytes]) -> None:
        """One connection: ask for what is missing and append it."""
        have = file.seek(0, os.SEEK_END)
        request = urllib.request.Request(self.url, headers={"User-Agent": "tspcli"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            response = urllib.request.urlopen(request, timeout=self._patience.stall_s)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not have:
                raise
            # Nothing lies beyond what is here: it is complete already, or longer than it should be.
            if _total(error.headers.get("Content-Range")) == have:
                return
            file.truncate(0)
            raise _InterruptedError(
                "the server has fewer bytes than had already arrived"
            ) from error
        with response:
            total: int | None
            if have and response.status == 206:
                span = response.headers.get("Content-Range", "")
                if span.removeprefix("bytes ").split("-")[0] != str(have):
                    file.truncate(0)
                    raise _InterruptedError(
                        "the server resumed at a different offset than requested"
                    )
                total = _total(span)
            else:
                # A server that ignores ranges starts over, and so do we.
                file.truncate(0)
                have = 0
                length = response.headers.get("Content-Length")
                total = int(length) if length and length.isdigit() else None
            file.seek(0, os.SEEK_END)
            try:
                while block := _read(response):
                    file.write(block)
                    have += len(block)
                    if self._on_progress is not None:
                        self._on_progress(have, total)
            finally:
                file.flush()
        if total is not None and have != total:
            raise _InterruptedError(f"the connection ended after {have} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK)
    except OSError as error:
        # Not to be taken for an error of our own disk.
        raise _InterruptedError(f"the connection broke: {error or type(error).__name__}") from error


def _total(content_range: str | None) -> int | None:
    """The complete length out of ``bytes 5-9/10`` or ``bytes */10``."""
    length = (content_range or "").rpartition("/")[2]
    return int(length) if length.isdigit() else None
