"""Serving the page on this machine alone, until it is stopped."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from tspcli.errors import UsageError
from tspcli.viewer.app import make_app
from tspcli.viewer.workspace import Workspace

HOST = "127.0.0.1"
_MOST_CONNECTIONS = 64


class PageServer(uvicorn.Server):
    """Serves the page of a workspace on this machine.

    Attributes:
        address: Where the page is, its token included.
    """

    def __init__(
        self, workspace: Workspace, port: int, stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        """Take the port.

        Args:
            workspace: What the page shows.
            port: The port; 0 takes a free one.
            stop_requested: Asked ten times per second whether to end.

        Raises:
            UsageError: If the port is taken.
        """
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((HOST, port))
            # Whoever is quick waits until the first answer.
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise UsageError(
                f"Port {port} cannot be used: {error.strerror}.",
                remedy="Give another --port, or none.",
                option="port",
                value=port,
            ) from error
        self._stop_requested = stop_requested
        taken = f"{HOST}:{self._listener.getsockname()[1]}"
        token = secrets.token_urlsafe(24)
        self.address = f"http://{taken}/?token={token}"
        app = make_app(workspace, token=token, hosts=frozenset({taken}))
        super().__init__(
            uvicorn.Config(
                app,
                log_level="error",
                access_log=False,
                server_header=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; called by uvicorn."""
        return self._stop_requested() or await super().on_tick(counter)

    def run_until_stopped(self) -> None:
        """Serve until a stop is requested, or :meth:`stop` is called."""
        with self._listener:
            self.run(sockets=[self._listener])

    def stop(self) -> None:
        """Let :meth:`run_until_stopped` return; may be called on any thread."""
        self.should_exit = True


def serve(
    workspace: Workspace,
    *,
    port: int,
    browser: bool,
    say: Callable[[str], None],
    stop_requested: Callable[[], bool],
) -> None:
    """Serve the page until a stop is requested.

    Args:
        workspace: What the page shows.
        port: The port; 0 takes a free one.
        browser: Whether to open the page in the browser.
        say: Shows a line of text; called with the address.
        stop_requested: Asked ten times per second whether to end.

    Raises:
        UsageError: If the port is taken.
    """
    server = PageServer(workspace, port, stop_requested)
    say(server.address)
    if browser:
        # Some browsers keep the caller waiting until they end.
        threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
    server.run_until_stopped()
