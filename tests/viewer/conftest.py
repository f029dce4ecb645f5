"""A page of made-up videos, served in this process."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

import numpy as np
import pytest

from tests.builders.stores import features, store
from tests.builders.videos import make_video
from tspcli.sampling import Sampling
from tspcli.store import open_store
from tspcli.video import list_videos

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tspcli.viewer.serve import PageServer
from tspcli.viewer.workspace import Heads, Workspace

DENSE = Sampling(stride=2)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Page:
    """A page that is being served."""

    address: str
    workspace: Workspace

    @property
    def port(self) -> int:
        return urlparse(self.address).port or 0

    @property
    def token(self) -> str:
        return parse_qs(urlparse(self.address).query)["token"][0]

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        with_token: bool = True,
        **parameters: object,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"x-tsp-token": self.token} if with_token else {}
        query = f"?{urlencode(parameters)}" if parameters else ""
        in_chunks = body is not None and not isinstance(body, bytes)
        connection.request(
            method, path + query, body, sent | (headers or {}), encode_chunked=in_chunks
        )
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found


@contextmanager
def serving(workspace: Workspace) -> Iterator[Page]:
    server = PageServer(workspace, 0)
    thread = threading.Thread(target=server.run_until_stopped)
    thread.start()
    try:
        yield Page(server.address, workspace)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


Serve = Callable[..., Page]


def server() -> Iterator[Serve]:
    """Serve stores by their paths; the keywords are those of the workspace, and `videos`."""
    with ExitStack() as stack:

        def start(
            *paths: Path,
            videos: Path | None = None,
            sampling: Sampling | None = None,
            **options: Any,
        ) -> Page:
            opened = [stack.enter_context(open_store(p, sampling=sampling)) for p in paths]
            files = {} if videos is None else {v.key: v for v in list_videos(videos)}
            return stack.enter_context(serving(Workspace(opened, files=files, **options)))

        yield start


serve = pytest.fixture(server)
serve_once = pytest.fixture(server, scope="module")


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, one that no browser plays, and a store of three videos' features."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "videos").mkdir()
    make_video(folder / "videos" / "v_a.mp4", n_frames=240)
    make_video(folder / "videos" / "v_b.avi", n_frames=90, codec="mpeg4", b_frames=0)
    store(
        folder / "feats.h5",
        {
            f"v_{name}": features(n, i, sampling=DENSE)
            for i, (name, n) in enumerate([("a", 53), ("b", 16), ("c", 40)])
        },
        sampling=DENSE,
        checksums=True,
    )
    return folder


@pytest.fixture(scope="module")
def two_heads() -> Heads:
    """Two classes and a region, whatever they mean."""
    rng = np.random.default_rng(3)
    layer = (rng.normal(size=(2, 64)), rng.normal(size=2))
    return Heads(("jump", "<b>run</b>"), action=layer, region=layer)
