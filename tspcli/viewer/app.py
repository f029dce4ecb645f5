"""The HTTP side of the page: what may be asked for, by whom, and how much of it.

Everything but the page's own fixed files needs the token of this run. Requests name videos by
number, never files by path; whatever they ask for is bounded; what changes something needs the
token in a header, which no other page can send.
"""

from __future__ import annotations

import hmac
import math
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tspcli.analysis.moments import Span
from tspcli.annotations.editing import ChangedMeanwhileError, EditedSegment
from tspcli.core.version import __version__
from tspcli.errors import TspError
from tspcli.viewer.frames import FrameServer
from tspcli.viewer.series import Series
from tspcli.viewer.workspace import NO_HEADS, Heads, Workspace

STATIC = Path(__file__).parent / "static"
TOKEN_HEADER = "x-tsp-token"
MOST_BODY_BYTES = 8 << 20
MOST_MOMENTS = 500
MOST_LINES = 2160
_OPEN_SERIES = 16

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Lets through what comes from this run's own page; sets the headers of every answer.

    Args:
        app: What answers.
        token: The token of this run.
        hosts: The values of the Host header that are this server's own.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = dict(_HEADERS)
                if not scope["path"].startswith("/static/"):
                    extra["cache-control"] = "no-store"
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode()) for name, value in extra.items()),
                ]
            await send(message)

        refusal = self._refusal(Request(scope))
        answer: ASGIApp = self._app if refusal is None else refusal
        await answer(scope, receive, send_with_headers)
        return None

    def _refusal(self, request: Request) -> Response | None:
        # A page elsewhere whose name was made to point here still says its own name.
        if request.headers.get("host", "") not in self._hosts:
            return _error(403, "This address is not the one that tsp view printed.")
        if request.url.path.startswith("/static/"):
            return None
        given = request.headers.get(TOKEN_HEADER)
        if given is None and request.method in ("GET", "HEAD"):
            given = request.query_params.get("token")
        if given is None or not hmac.compare_digest(given.encode(), self._token.encode()):
            return _error(403, "Open the address that tsp view printed: it holds a token.")
        if int(request.headers.get("content-length") or 0) > MOST_BODY_BYTES:
            return _error(413, "That is more than a page would send.")
        return None


class _Edits(msgspec.Struct):
    """The body of a request to save: all segments of each changed video, by its number.

    A segment is its start, end, label, and entry of the file or null.
    """

    version: str
    changes: dict[int, list[tuple[float, float, str, int | None]]]


class Answers:
    """What each address answers. Starlette calls what is not ``async`` on a thread."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.frames = FrameServer()
        # By the heads as well, which come later than the first requests.
        self._opened = lru_cache(maxsize=_OPEN_SERIES)(self._open_series)

    def page(self, request: Request) -> Response:
        """The page itself."""
        return FileResponse(STATIC / "index.html")

    def session(self, request: Request) -> Response:
        """What holds for all videos."""
        work = self._workspace
        return _json(
            {
                "tool": __version__,
                "stores": [
                    {"name": store.path.name, "weights": store.metadata.weights}
                    for store in work.stores
                ],
                "annotations": work.annotations_path and work.annotations_path.name,
                "predictions": work.predictions_path and work.predictions_path.name,
                "read_only": work.read_only,
                "version": work.version,
                "threshold": work.score_threshold,
                "labels": work.labels(),
            }
        )

    def videos(self, request: Request) -> Response:
        """The list; asked for again until it is complete."""
        videos, complete = self._workspace.describe()
        return _json({"videos": videos, "complete": complete})

    def video(self, request: Request) -> Response:
        """One video: its segments, predictions, warnings, file, and where its rows lie."""
        work, key = self._workspace, self._key(request)
        features, info = work.stores[0][key], work.info(key)
        others = [work.counterpart(key, n) for n in range(len(work.stores))]
        offset_s = 0.0
        if info is not None and info.start_s is not None:
            offset_s = max(0.0, float(info.start_s - info.origin_s))
        return _json(
            {
                "name": key,
                "seconds": features.duration_s,
                "warnings": features.warnings,
                "segments": work.segments_of(key),
                "version": work.version,
                "predictions": work.predictions_of(key),
                "series": [
                    None if k is None else self._series(n, k).facts() for n, k in enumerate(others)
                ],
                "unreadable": key in work.files and info is None,
                "heads": None if work.heads is None else work.heads.note,
                "file": None
                if info is None
                else {
                    "fps": None if info.fps is None else float(info.fps),
                    "width": info.width,
                    "height": info.height,
                    "codec": info.codec,
                    # Browsers count from where the container starts, rows from the first frame.
                    "offset_s": offset_s,
                },
            }
        )

    def tile(self, request: Request) -> Response:
        """Some points of one store's rows; see :meth:`Series.tile`."""
        series = self._series_asked_for(request)
        level = _whole(request, "level", 0, 64)
        return _json(series.tile(level, _whole(request, "tile", 0, 1 << 40)))

    def matrix(self, request: Request) -> Response:
        """Cosines of all pairs of rows in a stretch, one byte each."""
        cells, low, data = self._series_asked_for(request).matrix(
            _number(request, "start"), _number(request, "end")
        )
        headers = {"x-cells": str(cells), "x-low": f"{low:.4f}"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    def check(self, request: Request) -> Response:
        """Whether the rows are those that were written; null without a checksum."""
        return _json(self._workspace.stores[0][self._key(request)].verify())

    def frame(self, request: Request) -> Response:
        """The frame that the video shows at a time, as JPEG; headers state its time."""
        height = _whole(request, "height", 16, MOST_LINES)
        shown = self.frames.frame(self._file(request), _number(request, "time"), height)
        headers = {
            "x-start": repr(shown.start_s),
            "x-end": "" if shown.end_s is None else repr(shown.end_s),
        }
        return Response(shown.jpeg, media_type="image/jpeg", headers=headers)

    def file(self, request: Request) -> Response:
        """The video file, or the range of it that is asked for."""
        path = self._file(request)
        return FileResponse(path, media_type=mimetypes.guess_type(path.name)[0] or "video/mp4")

    def search(self, request: Request) -> Response:
        """The moments most like a stretch of a video."""
        work = self._workspace
        like = Span(self._key(request), _number(request, "start"), _number(request, "end"))
        found = work.index.search(
            like,
            top=_whole(request, "top", 1, MOST_MOMENTS),
            min_gap_s=_number(request, "min_gap", 0.0),
        )
        number = {key: n for n, key in enumerate(work.keys)}
        moments = [
            {
                "id": number[m.key],
                "name": m.key,
                "start_s": m.start_s,
                "end_s": m.end_s,
                "score": m.score,
            }
            for m in found
        ]
        return _json(
            {"moments": moments, "rows": work.index.n_rows, "resident": work.index.n_resident}
        )

    async def save(self, request: Request) -> Response:
        """Save edited segments; 409 with the current ones if the file has changed meanwhile."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY_BYTES:
                return _error(413, "That is more than a page would send.")
        return await to_thread.run_sync(self._save, bytes(body))

    def _save(self, body: bytes) -> Response:
        work = self._workspace
        try:
            edits = msgspec.json.decode(body, type=_Edits)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _error(400, f"These are no edits: {error}")
        changes = {
            work.key(number): [EditedSegment(*segment) for segment in segments]
            for number, segments in edits.changes.items()
        }
        try:
            work.save(edits.version, changes)
            status = 200
        except ChangedMeanwhileError:
            status = 409
        current = {number: work.segments_of(work.key(number)) for number in edits.changes}
        return _json({"version": work.version, "segments": current}, status)

    def _key(self, request: Request) -> str:
        return self._workspace.key(int(request.path_params["video"]))

    def _series_asked_for(self, request: Request) -> Series:
        store = _whole(request, "store", 0, len(self._workspace.stores) - 1)
        key = self._workspace.counterpart(self._key(request), store)
        if key is None:
            raise LookupError("the other store has no such video")
        return self._series(store, key)

    def _file(self, request: Request) -> Path:
        file = self._workspace.files.get(self._key(request))
        if file is None:
            raise LookupError("this video has no file here; give --videos")
        return file.path

    def _series(self, store: int, key: str) -> Series:
        heads = self._workspace.heads if store == 0 else None
        return self._opened(store, key, heads or NO_HEADS)

    def _open_series(self, store: int, key: str, heads: Heads) -> Series:
        return Series(self._workspace.stores[store][key], heads)


def make_app(workspace: Workspace, *, token: str, hosts: frozenset[str]) -> Starlette:
    """The application.

    Args:
        workspace: What it shows.
        token: What requests have to hold.
        hosts: The values of the Host header that are this server's own.
    """
    answers = Answers(workspace)
    one = "/api/videos/{video:int}"
    routes = [
        Route("/", answers.page),
        Route("/api/session", answers.session),
        Route("/api/videos", answers.videos),
        Route(one, answers.video),
        Route(f"{one}/tile", answers.tile),
        Route(f"{one}/matrix", answers.matrix),
        Route(f"{one}/check", answers.check),
        Route(f"{one}/frame", answers.frame),
        Route(f"{one}/file", answers.file),
        Route(f"{one}/search", answers.search),
        Route("/api/annotations", answers.save, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        answers.frames.close()
        workspace.close()

    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={HTTPException: _explain, TspError: _explain, LookupError: _explain},
        lifespan=lifespan,
    )


async def _explain(request: Request, error: Exception) -> Response:
    if isinstance(error, TspError):
        return _error(422, " ".join(filter(None, [error.message, error.remedy])))
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail)
    return _error(404, str(error))


def _error(status: int, words: str) -> Response:
    return _json({"error": words}, status)


def _json(value: Any, status: int = 200) -> Response:
    # NaN becomes null.
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _number(request: Request, name: str, default: float | None = None) -> float:
    text = request.query_params.get(name)
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        number = math.nan
    if text is None and default is not None:
        return default
    if not math.isfinite(number) or number < 0:
        raise HTTPException(400, f"{name}={text!r} is not a number of seconds.")
    return number


def _whole(request: Request, name: str, least: int, most: int) -> int:
    text = request.query_params.get(name, str(least))
    if not (text.isascii() and text.isdigit() and len(text) < 16 and least <= int(text) <= most):
        raise HTTPException(400, f"{name}={text!r} is not a whole number from {least} to {most}.")
    return int(text)
