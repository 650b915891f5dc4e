"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["eventually"]

_T = TypeVar("_T")
_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.1


def eventually(
    predicate: Callable[[], _T],
    timeout_s: float = 10.0,
    message: str = "",
    *,
    ignoring: tuple[type[Exception], ...] = (),
) -> _T:
    """Call `predicate` until its answer is true, and return that answer.

    Args:
        predicate: Asked at least once. An AssertionError in it counts as "not yet".
        timeout_s: When to give up.
        message: What was waited for, for the failure message.
        ignoring: Further exceptions that count as "not yet", such as `BrokerUnavailableError`
            while a server restarts.

    Raises:
        AssertionError: If the deadline passed; it tells the last answer or exception.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    last = ""
    not_yet: tuple[type[Exception], ...] = (AssertionError, *ignoring)
    while True:
        cause: Exception | None = None
        try:
            answer = predicate()
        except not_yet as error:
            cause, last = error, f"raised {error!r}"
        else:
            if answer:
                return answer
            last = f"answered {answer!r}"
        if time.monotonic() >= deadline:
            what = message or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last: {last})") from cause
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
