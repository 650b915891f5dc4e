"""The broker under test: it can be killed, hung, and robbed of its last second."""

import signal
import threading
import time
from collections import deque
from pathlib import Path

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.embedded import AppendFsync, EmbeddedServer

__all__ = ["ChaosBroker"]

SAMPLE_S = 0.02
KEPT_SAMPLES = 500
STALE_S = 0.5
ADMIN_TIMEOUT_S = 5.0


class ChaosBroker:
    """A real server on one port and one folder, over all restarts.

    Its append-only file is never rewritten, so that it holds the whole history that survived.
    """

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self._folder = folder
        self._port: int | None = None
        self._server = self._started("everysec")
        self._port = self._server.port
        self.url = self._server.url
        self._sizes: deque[tuple[float, int]] = deque(maxlen=KEPT_SAMPLES)
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="aof-size", daemon=True)
        self._sampler.start()

    @property
    def port(self) -> int:
        """Where it listens, alive or not."""
        assert self._port is not None
        return self._port

    def url_through(self, port: int) -> str:
        """The address by way of a proxy."""
        return self.url.replace(f"127.0.0.1:{self.port}", f"127.0.0.1:{port}")

    def _started(self, appendfsync: AppendFsync) -> EmbeddedServer:
        return EmbeddedServer(
            self._folder,
            port=self._port,
            appendfsync=appendfsync,
            settings={"auto-aof-rewrite-percentage": "0"},
        ).start()

    def files(self) -> list[Path]:
        """The append-only files, oldest first.

        Raises:
            RuntimeError: If the server has rewritten them: then the history is not in them.
        """
        folder = self._folder / "appendonlydir"
        if len(list(folder.glob("*.base.*"))) != 1 or not list(folder.glob("*.1.base.*")):
            raise RuntimeError(f"the append-only file in {folder} was rewritten")
        return sorted(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def restart(self, appendfsync: AppendFsync = "everysec") -> None:
        """After `kill`: on the same data and port."""
        self._server = self._started(appendfsync)

    def cut(self, seconds: float) -> int:
        """After `kill`: take away what was written in the last `seconds`; how many bytes.

        Raises:
            RuntimeError: If the file was not watched just now: more than that might be cut, and
                what agents retain no longer is lost with every right.
        """
        path = self.files()[-1]
        size = path.stat().st_size
        died, samples = time.monotonic(), tuple(self._sizes)
        kept = [length for at, length in samples if at <= died - seconds]
        if not kept or died - samples[-1][0] > STALE_S:
            raise RuntimeError("the size of the append-only file is not known")
        target = min(kept[-1], size)
        with path.open("r+b") as file:
            file.truncate(target)
        return size - target

    def hang(self) -> None:
        """SIGSTOP."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._server.send_signal(signal.SIGCONT)

    def admin(self) -> Broker:
        """A connection of an operator, past the proxies; the caller closes it."""
        return Broker(
            BrokerAddress.from_url(self.url), timeout_s=ADMIN_TIMEOUT_S, name="chaos-operator"
        )

    def close(self) -> None:
        """Stop it as an operator would: all of the history is in the files."""
        self._stop.set()
        self._sampler.join()
        self._server.stop()

    def _sample(self) -> None:
        # The file alone is looked at: the server object belongs to the thread of the faults.
        while not self._stop.wait(SAMPLE_S):
            paths = sorted((self._folder / "appendonlydir").glob("*.incr.aof"))
            if paths:
                self._sizes.append((time.monotonic(), paths[-1].stat().st_size))
