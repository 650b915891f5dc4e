"""A real Redis or Valkey server in a folder of one's own, for people and tests without a broker.

In: a data folder. Out: a URL. `rl4sys-stream up`, `demo` and `testing.RedisServer` call it; a
production system runs its own Redis and never comes here.

The server keeps an append-only file, evicts nothing, listens on loopback and a Unix socket, and
asks for a random password that lives in `server.json` (mode 0600). It ends with its owner (see
`server_process`). The lock on the folder is inherited by the server itself: it is free only when
no server uses the folder any more, even if the process that started it was killed.
"""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from rl4sys_stream.broker.server_binary import find_server
from rl4sys_stream.broker.server_process import ServerProcess
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.errors import ServerStartError, WireFormatError
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.json import decode_json

__all__ = ["AppendFsync", "EmbeddedServer"]

AppendFsync = Literal["always", "everysec", "no"]

_LOGGER: Final = logging.getLogger("rl4sys_stream.broker.embedded")
_LOOPBACK: Final = "127.0.0.1"
_MAX_SOCKET_PATH: Final = 100
"""The kernel's limit is 108 bytes on Linux and 104 on macOS, with the final zero."""
_PORTS: Final = range(20_000, 32_000)
"""Below the ranges for outgoing connections (from 32768 on Linux, 49152 on macOS): a client that
keeps reconnecting to a stopped server would otherwise end up connected to itself."""
_PORT_ATTEMPTS: Final = 20
_LOG_TAIL_LINES: Final = 12


class _Record(msgspec.Struct, frozen=True):
    """What `server.json` holds: how to reach the server, and the password over restarts."""

    pid: int
    port: int
    unix_socket: str
    password: str


class _PortTakenError(Exception):
    """Another process listens on the port."""


class EmbeddedServer:
    """A server in `data_dir`, started by `start()` and stopped by `stop()` or with its owner.

    If another process runs the server of this folder already, `start()` uses that one; `owned` is
    then false and `stop()` leaves it alone.

    Args:
        data_dir: Folder of the append-only file, the log, the socket and `server.json`; made if
            missing. It must be on a local disk.
        port: TCP port on loopback; None takes the port of the last run if it is free, else a
            random one.
        appendfsync: When the append-only file is flushed to the disk; None keeps no file, so that
            a stopped server has forgotten everything.
        maxmemory: Limit in Redis notation (`512mb`); a full server refuses writes.
        settings: Further server directives, such as `{"enable-debug-command": "local"}`.
        start_timeout_s: Patience with a server that neither answers nor says that it is loading.
        environ: Where to look for `RL4SYS_STREAM_REDIS_SERVER` and `PATH`; the process's own by
            default.
    """

    def __init__(
        self,
        data_dir: str | Path,
        *,
        port: int | None = None,
        appendfsync: AppendFsync | None = "everysec",
        maxmemory: str = "1gb",
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 20.0,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._data_dir = Path(data_dir).absolute()
        self._port = port
        self._appendfsync = appendfsync
        self._maxmemory = maxmemory
        self._settings = dict(settings or {})
        self._start_timeout_s = start_timeout_s
        self._environ = environ
        self._clock = clock or SystemClock()
        self._record: _Record | None = None
        self._process: ServerProcess | None = None
        self._socket_dir: str | None = None
        self._starter = 0

    @property
    def data_dir(self) -> Path:
        """The folder of the server, absolute."""
        return self._data_dir

    @property
    def url(self) -> str:
        """The server's address with its password: for programs, never for logs."""
        record = self._started()
        return f"redis://:{record.password}@{_LOOPBACK}:{record.port}/0"

    @property
    def public_url(self) -> str:
        """The server's address without its password, for people and logs."""
        return f"redis://{_LOOPBACK}:{self._started().port}/0"

    @property
    def unix_socket(self) -> Path:
        """The server's Unix socket; the same password holds there."""
        return Path(self._started().unix_socket)

    @property
    def port(self) -> int:
        """The server's TCP port on loopback."""
        return self._started().port

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._started().pid

    @property
    def password(self) -> str:
        """The server's password, the same over restarts in one folder."""
        return self._started().password

    @property
    def owned(self) -> bool:
        """Whether this object started the server, and so stops it."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        """Whether the server runs (if owned), or answers (if another process owns it)."""
        if self._process is not None:
            return self._process.poll() is None
        return self._record is not None and _greet(self._record) == "ready"

    def start(self) -> Self:
        """Start the server, or find the one that runs in this folder; returns when it answers.

        Raises:
            ServerStartError: If there is no server binary, the port is taken, the folder is held
                by a server that does not answer, or the server ended (with the end of its log).
        """
        if self._record is not None:
            return self
        self._starter = os.getpid()
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServerStartError(f"cannot make the data folder: {error}") from error
        lock = self._lock_or_join()
        if lock is None:
            return self
        try:
            self._launch(lock)
        except BaseException:
            self._forget()
            raise
        finally:
            # The server holds the lock from here on; our own copy would outlive it.
            os.close(lock)
        log_event(_LOGGER, logging.INFO, "server.started", url=self.public_url, pid=self.pid)
        return self

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stop the server if it is owned, with everything it accepted flushed; safe to repeat."""
        if self._process is not None:
            self._process.stop(timeout_s)
        self._forget()

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL); it writes nothing more."""
        if self._process is not None:
            self._process.kill()
        self._forget()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the server, such as SIGSTOP to make it hang."""
        os.kill(self.pid, number)

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def __repr__(self) -> str:
        """Without the password."""
        state = "stopped" if self._record is None else self.public_url
        return f"EmbeddedServer({str(self._data_dir)!r}, {state})"

    def _started(self) -> _Record:
        if self._record is None:
            raise ServerStartError(f"the server of {self._data_dir} is not started; call start()")
        return self._record

    def _lock_or_join(self) -> int | None:
        """The descriptor of the folder's lock, or None when another owner's server answered."""
        lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = self._clock.monotonic() + self._start_timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return lock
            record = self._read_record()
            if record is not None and _greet(record) == "ready":
                os.close(lock)
                self._join(record)
                return None
            if self._clock.monotonic() > deadline:
                os.close(lock)
                holder = f"process {record.pid}" if record else "another process"
                raise ServerStartError(
                    f"the folder {self._data_dir} is held by {holder}, whose server does not "
                    "answer; stop that process, or choose another data folder"
                )
            _pause(self._clock)

    def _join(self, record: _Record) -> None:
        if self._port is not None and self._port != record.port:
            raise ServerStartError(
                f"the server of {self._data_dir} runs already, on port {record.port}; use that "
                "port, or choose another data folder"
            )
        self._record = record
        log_event(_LOGGER, logging.INFO, "server.joined", url=self.public_url, pid=record.pid)

    def _read_record(self) -> _Record | None:
        try:
            data = (self._data_dir / "server.json").read_bytes()
            return decode_json(data, _Record, "server.json")
        except (OSError, WireFormatError):
            return None  # not written yet, or by something else: start afresh

    def _launch(self, lock: int) -> None:
        old = self._read_record()
        password = old.password if old else secrets.token_hex(24)
        binary = find_server(os.environ if self._environ is None else self._environ)
        for port in self._ports(old):
            record = _Record(0, port, self._socket_path(), password)
            try:
                self._spawn(binary, record, lock)
            except _PortTakenError:
                continue
            return
        if self._port is not None:
            raise ServerStartError(
                f"port {self._port} on {_LOOPBACK} is already in use; stop what listens there, or "
                "choose another port"
            )
        raise ServerStartError("found no free port on loopback; name one")

    def _ports(self, old: _Record | None) -> Iterator[int]:
        if self._port is not None:
            yield self._port
            return
        if old is not None:
            yield old.port
        for _ in range(_PORT_ATTEMPTS):
            yield secrets.choice(_PORTS)

    def _socket_path(self) -> str:
        path = str(self._data_dir / "server.sock")
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        if self._socket_dir is None:
            # mkdtemp makes it 0700. Not $TMPDIR, which may be as long as the path that failed.
            self._socket_dir = tempfile.mkdtemp(prefix="rl4sys-", dir="/tmp")
        return f"{self._socket_dir}/server.sock"

    def _configuration(self, record: _Record) -> bytes:
        directives = {
            "port": str(record.port),
            "bind": _LOOPBACK,
            "protected-mode": "yes",
            "requirepass": record.password,
            "unixsocket": record.unix_socket,
            "unixsocketperm": "700",
            "dir": str(self._data_dir),
            "daemonize": "no",
            "save": "",
            "appendonly": "no" if self._appendfsync is None else "yes",
            "appendfsync": self._appendfsync or "no",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",
            **self._settings,
        }
        return "".join(f"{key} {_quote(value)}\n" for key, value in directives.items()).encode()

    def _spawn(self, binary: Path, record: _Record, lock: int) -> None:
        if _listening(record.port):
            raise _PortTakenError
        log = self._data_dir / "server.log"
        begin = log.stat().st_size if log.exists() else 0
        process = ServerProcess(
            binary,
            self._configuration(record),
            log=log,
            folder=self._data_dir,
            inherit=(lock,),
        )
        try:
            self._await_ready(process, record, log, begin)
        except BaseException:
            process.kill()
            raise
        self._process = process
        self._record = msgspec.structs.replace(record, pid=process.pid)
        self._write_record(self._record)

    def _await_ready(self, process: ServerProcess, record: _Record, log: Path, begin: int) -> None:
        deadline = self._clock.monotonic() + self._start_timeout_s
        while (code := process.poll()) is None:
            state = _greet(record)
            if state == "ready":
                return
            if state == "loading":
                # A large append-only file takes its time; that is progress, not a hang.
                deadline = self._clock.monotonic() + self._start_timeout_s
            if self._clock.monotonic() > deadline:
                raise ServerStartError(
                    f"the server did not answer within {self._start_timeout_s:g} s; the end of "
                    f"{log}:\n{_tail(log, begin)}"
                )
            _pause(self._clock)
        text = _tail(log, begin)
        if "Address already in use" in text:
            raise _PortTakenError
        raise ServerStartError(f"the server ended with code {code}; the end of {log}:\n{text}")

    def _write_record(self, record: _Record) -> None:
        path = self._data_dir / "server.json"
        draft = path.with_suffix(".tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(record))
        draft.replace(path)  # a reader sees the old file or the new one, never half of one

    def _forget(self) -> None:
        # A forked child that stops its copy of this object must leave the parent's socket alone.
        if self._socket_dir is not None and self._starter == os.getpid():
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._record = self._process = self._socket_dir = None


def _pause(clock: Clock) -> None:
    clock.wait(threading.Event(), 0.01)


def _quote(value: str) -> str:
    """`value` as one argument of a configuration line.

    Raises:
        ServerStartError: If it holds a line break, which no directive can.
    """
    if "\n" in value or "\r" in value:
        raise ServerStartError(f"a server setting cannot hold a line break: {value!r}")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _listening(port: int) -> bool:
    """Whether something accepts connections on the port; bind() alone would not tell on macOS."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_LOOPBACK, port)) == 0


def _greet(record: _Record) -> Literal["ready", "loading", "silent"]:
    """Ask the server for a sign of life, in the protocol's inline form."""
    try:
        with socket.create_connection((_LOOPBACK, record.port), timeout=1.0) as link:
            link.sendall(f"AUTH {record.password}\r\nPING\r\n".encode())
            with link.makefile("rb") as answers:
                greeting, answer = answers.readline(), answers.readline()
    except OSError:
        return "silent"
    if not greeting.startswith(b"+OK"):
        return "silent"
    if answer.startswith(b"-LOADING"):
        return "loading"
    return "ready" if answer.startswith(b"+PONG") else "silent"


def _tail(log: Path, begin: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(begin)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"(unreadable: {error})"
    return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(empty)"
