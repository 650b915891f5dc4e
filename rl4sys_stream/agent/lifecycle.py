"""Forks and the end of the process: what happens to agents that nobody closes.

Hooks cannot be taken back, so they are installed once, with the first agent; agents are held
weakly.
"""

import atexit
import os
import threading
import time
import weakref
from typing import Final, Protocol

from rl4sys_stream.agent.listener import forget_listeners

__all__ = ["watch"]

EXIT_TIMEOUT_S: Final = 2.0
"""What all agents together may add to the end of the process."""


class _Watched(Protocol):
    def close(self, timeout_s: float = ...) -> None: ...

    def start_over_after_fork(self) -> None: ...


_watched: "weakref.WeakSet[_Watched]" = weakref.WeakSet()
_installed = threading.Event()


def watch(agent: _Watched) -> None:
    """Close `agent` when the process ends, and start it over in children that are forked off."""
    if not _installed.is_set():
        _installed.set()
        atexit.register(_close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_start_over)
    _watched.add(agent)


def _close_all() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    for agent in list(_watched):
        agent.close(timeout_s=max(deadline - time.monotonic(), 0.05))


def _start_over() -> None:
    forget_listeners()
    for agent in list(_watched):
        agent.start_over_after_fork()
