"""A server process that ends with its owner; `embedded` is the only caller.

The server reads its configuration from standard input, so that the password in it is in no
argument list. A watchdog process waits for the end of a pipe that only the owner holds open, and
ends the server when that comes, however the owner died. Unlike a parent-death signal this works on
macOS too, and does not fire when the thread that happened to start the server ends.
"""

import contextlib
import logging
import os
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rl4sys_stream.errors import ServerStartError
from rl4sys_stream.telemetry import log_event

__all__ = ["ServerProcess"]

_LOGGER: Final = logging.getLogger("rl4sys_stream.broker.server_process")
_WATCHDOG: Final = 'read -r _ || kill -TERM "$1"'


class ServerProcess:
    """A running server program and its watchdog.

    Args:
        binary: The server program.
        configuration: Directives, one a line, as the program reads them from standard input.
        log: File that receives its output, at the end.
        folder: Its working folder.
        inherit: Descriptors that it holds open for as long as it lives.

    Raises:
        ServerStartError: If the program cannot be run. Whether it then serves is for the caller
            to find out.
    """

    def __init__(
        self,
        binary: Path,
        configuration: bytes,
        *,
        log: Path,
        folder: Path,
        inherit: Sequence[int] = (),
    ) -> None:
        with log.open("ab") as output:
            try:
                self._server = subprocess.Popen(
                    [str(binary), "-"],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    pass_fds=inherit,
                    # Ctrl-C in a terminal must reach the worker, which still has to commit, and
                    # not the server under it.
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerStartError(f"cannot run {binary}: {error}") from error
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "rl4sys-stream-watchdog", str(self._server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _close_in_forked_children(self)
        _feed(self._server, configuration)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    def poll(self) -> int | None:
        """The server's exit code, None while it runs."""
        code = self._server.poll()
        if code is not None:
            # From here on the process id may belong to a stranger.
            self._dismiss_watchdog()
        return code

    def stop(self, timeout_s: float) -> None:
        """Ask the server to end (SIGTERM), and kill it after `timeout_s`; safe to repeat."""
        if self.poll() is not None:
            return
        self._server.terminate()
        self._dismiss_watchdog()  # before wait(), for the reason in poll()
        try:
            self._server.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log_event(_LOGGER, logging.WARNING, "server.killed", pid=self.pid, after_s=timeout_s)
            self._server.kill()
            self._server.wait()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); safe to repeat."""
        if self.poll() is None:
            self._server.kill()
            self._dismiss_watchdog()
            self._server.wait()

    def disown(self) -> None:
        """In a forked child: leave the server to the parent, and let go of its pipe."""
        for process in (self._server, self._watchdog):
            process.returncode = 0  # not a child of this process: nothing to wait for
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()

    def _dismiss_watchdog(self) -> None:
        if self._watchdog.returncode is None:
            _feed(self._watchdog, b"dismissed\n")
            self._watchdog.wait()


_RUNNING: Final[weakref.WeakSet[ServerProcess]] = weakref.WeakSet()
_REGISTERED: Final = threading.Event()


def _close_in_forked_children(process: ServerProcess) -> None:
    _RUNNING.add(process)
    if not _REGISTERED.is_set():
        _REGISTERED.set()
        os.register_at_fork(after_in_child=_disown_all)


def _disown_all() -> None:
    for process in tuple(_RUNNING):
        process.disown()


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write `data` to the process's input and close it; a process that is gone is no error here."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data)
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
