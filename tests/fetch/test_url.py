"""Downloads from a server that truncates, stalls, corrupts, ignores ranges and refuses."""

from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tspcli.errors import DownloadError
from tspcli.fetch.url import Patience, download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(stall_s=0.5, attempts=3, backoff_s=0.01)


@dataclass
class Behaviour:
    """What the server does, request by request; the last entry serves all further ones."""

    script: list[str] = field(default_factory=lambda: ["whole"])
    content: bytes = CONTENT
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def next(self) -> str:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class Handler(http.server.BaseHTTPRequestHandler):
    behaviour: Behaviour

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.behaviour.seen.append((self.path, wanted))
        act, content = self.behaviour.next(), self.behaviour.content
        if act.isdigit():
            self.send_error(int(act))
            return
        if act == "corrupt":
            content = bytes(reversed(content))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if act in ("no ranges", "truncate without ranges"):
            start = 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        shifted = 1 if act == "wrong range" else 0
        body = content[start + shifted :]
        self.send_response(206 if start else 200)
        if start:
            span = f"bytes {start + shifted}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        if act != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if act in ("truncate", "truncate without ranges", "stall"):
            self.wfile.write(body[: len(CONTENT) // 3])
            self.wfile.flush()
            if act == "stall":
                self.behaviour.release.wait(20)
            return
        if act == "nothing":
            return
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/w.pth", behaviour
    behaviour.release.set()
    running.shutdown()
    running.server_close()
    thread.join()


Server = tuple[str, Behaviour]


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], SHA256[:8].upper()])
def test_whole_file(tmp_path: Path, server: Server, sha256: str) -> None:
    reported: list[tuple[int, int | None]] = []
    target = tmp_path / "cache" / "w.pth"
    found = download(
        server[0], target, sha256, on_progress=lambda *a: reported.append(a), patience=QUICK
    )
    assert found == target and target.read_bytes() == CONTENT
    assert reported[-1] == (len(CONTENT), len(CONTENT))
    assert [have for have, _ in reported] == sorted({have for have, _ in reported})
    assert [p.name for p in target.parent.iterdir()] == ["w.pth"]


def test_file_that_is_there_is_not_fetched(tmp_path: Path, server: Server) -> None:
    (tmp_path / "w.pth").write_bytes(b"mine")
    download(server[0], tmp_path / "w.pth", SHA256, patience=QUICK)
    assert server[1].seen == []
    assert (tmp_path / "w.pth").read_bytes() == b"mine"


@pytest.mark.parametrize("broken", ["truncate", "stall"])
def test_broken_connections_are_resumed(tmp_path: Path, server: Server, broken: str) -> None:
    url, behaviour = server
    behaviour.script = [broken, broken, "whole"]
    download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert [r for _, r in behaviour.seen] == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_next_call_resumes_what_the_last_one_left(tmp_path: Path, server: Server) -> None:
    url, behaviour = server
    behaviour.script = ["truncate", "500"]
    with pytest.raises(DownloadError, match="500"):
        download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert not (tmp_path / "w.pth").exists()
    behaviour.script, behaviour.seen = ["whole"], []
    download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert behaviour.seen == [("/w.pth", f"bytes={len(CONTENT) // 3}-")]


@pytest.mark.parametrize("second", ["no ranges", "wrong range", "no length"])
def test_servers_that_cannot_resume(tmp_path: Path, server: Server, second: str) -> None:
    url, behaviour = server
    behaviour.script = ["truncate", second, "whole"]
    download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_server_without_lengths(tmp_path: Path, server: Server) -> None:
    url, behaviour = server
    behaviour.script = ["no length"]
    reported: list[int | None] = []
    download(
        url, tmp_path / "w.pth", SHA256, on_progress=lambda _, n: reported.append(n), patience=QUICK
    )
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert set(reported) == {None}


def test_corrupt_content_is_thrown_away(tmp_path: Path, server: Server) -> None:
    url, behaviour = server
    behaviour.script = ["corrupt"]
    with pytest.raises(DownloadError) as error:
        download(url, tmp_path / "w.pth", SHA256[:8], patience=QUICK)
    assert error.value.data["sha256"] == SHA256[:8]
    assert str(tmp_path / "w.pth") in str(error.value.remedy)
    assert list(tmp_path.iterdir()) == []


def test_part_of_another_file_is_replaced(tmp_path: Path, server: Server) -> None:
    """What was left over fits the length but not the content: begin anew, once."""
    url, behaviour = server
    (tmp_path / ".w.pth.part").write_bytes(b"\0" * 1000)
    download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [r for _, r in behaviour.seen] == ["bytes=1000-", None]


@pytest.mark.parametrize("extra", [0, 5])
def test_part_that_is_whole_or_too_long(tmp_path: Path, server: Server, extra: int) -> None:
    (tmp_path / ".w.pth.part").write_bytes(CONTENT + b"x" * extra)
    download(server[0], tmp_path / "w.pth", SHA256, patience=QUICK)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "requests"), [("404", 1), ("403", 1), ("500", 3), ("503", 3)])
def test_refusals(tmp_path: Path, server: Server, code: str, requests: int) -> None:
    url, behaviour = server
    behaviour.script = [code]
    with pytest.raises(DownloadError, match=code) as error:
        download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert len(behaviour.seen) == requests
    assert error.value.remedy is not None
    assert str(tmp_path / "w.pth") in error.value.remedy and url in error.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("act", ["nothing", "truncate without ranges"])
def test_no_progress_is_given_up(tmp_path: Path, server: Server, act: str) -> None:
    url, behaviour = server
    behaviour.script = [act]
    with pytest.raises(DownloadError, match=str(len(CONTENT))):
        download(url, tmp_path / "w.pth", SHA256, patience=QUICK)
    assert len(behaviour.seen) <= QUICK.attempts + 1
    assert not (tmp_path / "w.pth").exists()


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as error:
        download("http://127.0.0.1:9/w.pth", tmp_path / "w.pth", SHA256, patience=QUICK)
    assert error.value.data["url"] == "http://127.0.0.1:9/w.pth"
    assert str(tmp_path / "w.pth") in str(error.value.remedy)


def test_mirror(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url, behaviour = server
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", url.removesuffix("w.pth") + "mirror/")
    download("https://example.invalid/v1/x", tmp_path / "w.pth", SHA256, patience=QUICK)
    assert behaviour.seen == [("/mirror/w.pth", None)]


def test_files_can_be_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w.pth").write_bytes(CONTENT)
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", (tmp_path / "m").as_uri())
    download("https://example.invalid/w.pth", tmp_path / "w.pth", SHA256, patience=QUICK)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def _fetch(url: str, target: Path) -> None:
    download(url, target, SHA256, patience=Patience(stall_s=10, attempts=2, backoff_s=0.01))


def test_processes_that_fetch_at_once_download_once(tmp_path: Path, server: Server) -> None:
    url, behaviour = server
    behaviour.script = ["truncate", "whole"]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch, args=(url, tmp_path / "w.pth")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]
    assert len(behaviour.seen) == 2
