"""Code that runs in a forked child, where nothing of pytest's may happen."""

import os
import traceback
from collections.abc import Callable

import pytest


def in_child(action: Callable[[], object]) -> int:
    """Run `action` in a forked child; its exit code."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in the child
        code = 1
        try:
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may escape into pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# Forking a process with threads is what is tested; Python 3.12 and later warn of it.
forking = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
