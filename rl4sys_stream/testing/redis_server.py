"""A real server for tests, in a temporary folder, that can be killed, hung and restarted."""

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rl4sys_stream.broker.embedded import AppendFsync, EmbeddedServer

__all__ = ["RedisServer"]


class RedisServer:
    """An `EmbeddedServer` whose folder, port and password last over `restart()`.

        with RedisServer() as server:
            agent = StreamAgent(..., redis_url=server.url)
            server.kill()
            server.restart()

    Args:
        aof: When the append-only file is flushed: "always", "everysec" (keeps everything when
            only the server dies), "no", or None for a server that forgets.
        maxmemory: Limit in Redis notation; writes beyond it are refused.
        settings: Further server directives, such as `{"enable-debug-command": "local"}`.
        port: TCP port; None for a free one.

    Raises:
        ServerStartError: From `start`, if there is no server program. Tests that need a server
            fail then; they do not skip.
    """

    def __init__(
        self,
        *,
        aof: AppendFsync | None = "everysec",
        maxmemory: str = "512mb",
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rl4sys-"))
        self._aof = aof
        self._maxmemory = maxmemory
        self._settings = dict(settings or {})
        self._port = port
        self._url = self._public_url = ""
        self._server: EmbeddedServer | None = None

    @property
    def url(self) -> str:
        """The address with its password; it stays the same over `kill` and `restart`."""
        return self._url

    @property
    def public_url(self) -> str:
        """The address without its password."""
        return self._public_url

    @property
    def port(self) -> int:
        """The TCP port on loopback; it stays the same over `restart`."""
        return self._running().port if self._port is None else self._port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def unix_socket(self) -> Path:
        """The Unix socket of the running server."""
        return self._running().unix_socket

    @property
    def data_dir(self) -> Path:
        """The folder with the append-only file (`appendonlydir/`) and the log."""
        return self._folder

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._server is not None and self._server.alive

    def start(self) -> Self:
        """Start the server; returns when it answers."""
        if self._server is None:
            server = EmbeddedServer(
                self._folder,
                port=self._port,
                appendfsync=self._aof,
                maxmemory=self._maxmemory,
                settings=self._settings,
            ).start()
            self._server = server
            self._port, self._url, self._public_url = server.port, server.url, server.public_url
        return self

    def stop(self) -> None:
        """Stop the server as an operator would (SIGTERM): everything accepted is on disk."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL)."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()

    def pause(self) -> None:
        """Make the server hang (SIGSTOP): connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start the server again on the same port and data; stops it first if it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and delete its folder."""
        self.kill()  # nobody reads the folder again, so there is nothing to flush
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server and delete its folder."""
        self.close()

    def _running(self) -> EmbeddedServer:
        if self._server is None:
            raise RuntimeError("the test server is not running; call start() or restart()")
        return self._server
