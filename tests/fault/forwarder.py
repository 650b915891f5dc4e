"""A way to the broker that a test can bend: replies that get lost, another server behind it."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class Forwarder:
    """Listens on a port of its own, and carries bytes to and from a server."""

    def __init__(self, url: str) -> None:
        """Towards the server at `url`."""
        parts = urlsplit(url)
        assert parts.port is not None
        self._target = parts.port
        self._muted = threading.Event()
        self._mute_at: bytes | None = None
        self._trigger: tuple[bytes, Callable[[], None]] | None = None
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}", f":{port}")
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def mute_from(self, text: str) -> None:
        """From the first request with `text` in it on, requests arrive and replies do not."""
        self._mute_at = text.encode()

    def switch(self, port: int) -> None:
        """Cut all connections; the next ones go to another server."""
        self._target = port
        self.cut()

    def when(self, text: str, action: Callable[[], None]) -> None:
        """Once, straight after a request with `text` in it was passed on."""
        self._trigger = (text.encode(), action)

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            cut = list(self._sockets)
        for one in cut:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut everything and listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for one in self._sockets:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self, request: bytes) -> None:
        trigger = self._trigger
        if trigger is not None and trigger[0] in request:
            self._trigger = None
            trigger[1]()

    def _begin(self, *call: object) -> None:
        action, *arguments = call
        assert callable(action)
        thread = threading.Thread(target=action, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += (client, server)
            self._begin(self._carry, client, server, None)
            self._begin(self._carry, server, client, self._muted)

    def _carry(
        self, source: socket.socket, sink: socket.socket, silence: threading.Event | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if silence is None and self._mute_at and self._mute_at in data:
                    self._muted.set()
                if silence is None or not silence.is_set():
                    sink.sendall(data)
                if silence is None:
                    self._look(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
