"""Worker processes: started with the broker's address in the environment, never in `ps`."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from rl4sys_stream.broker.connection import URL_ENV, BrokerAddress
from rl4sys_stream.errors import ExitCode

__all__ = ["SpawnWorker", "WorkerProcess", "describe_exit", "worker_spawner"]


class WorkerProcess(Protocol):
    """What the dispatcher needs of a child."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to finish and go."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired if it takes longer."""
        ...


SpawnWorker = Callable[[str], WorkerProcess]
"""Starts the worker of the client with that name; OSError if the system has no room for it."""


def worker_spawner(
    address: BrokerAddress, *, arguments: Sequence[str] = (), die_with_parent: bool = False
) -> SpawnWorker:
    """A `SpawnWorker` that runs `python -m rl4sys_stream worker --client NAME`.

    Args:
        address: The broker's; handed on in the environment.
        arguments: More for every worker (`--workers-dir`, `--debug`).
        die_with_parent: Whether the workers stop when this process is gone. Without it they go on,
            and another dispatcher finds their leases held.
    """
    extra = [*arguments, *(["--parent-pid", str(os.getpid())] if die_with_parent else [])]

    def spawn(client: str) -> WorkerProcess:
        return subprocess.Popen(
            [sys.executable, "-m", "rl4sys_stream", "worker", "--client", client, *extra],
            env={**os.environ, URL_ENV: address.secret_url},
            stdin=subprocess.DEVNULL,
            # A Ctrl-C at the terminal is the dispatcher's business: it stops its workers in order.
            start_new_session=True,
        )

    return spawn


def describe_exit(code: int) -> str:
    """`code` in words: "exit code 78 (config)", "killed by SIGKILL"."""
    if code >= 0:
        known = [one.name.lower().replace("_", " ") for one in ExitCode if one == code]
        return f"exit code {code}" + "".join(f" ({name})" for name in known)
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
