"""Log events and metric names: one spelling for each, used by every part.

A log line is an event with fields (`worker.committed client=lunar_lander version=3`), not prose.
WARNING means that somebody may want to act, ERROR that somebody must. A condition that repeats is
logged once per change of state, with a count. The library configures no handlers; commands do.
"""

import logging
import re
import sys
from typing import Final

__all__ = ["StateLog", "configure_logging", "log_event", "redact_url"]

_URL_SECRET: Final = re.compile(r"(?P<head>\b[a-z+]+://[^/@\s:]*:)\S*(?=@)")
_URL_QUERY_SECRET: Final = re.compile(r"(?i)(password=)[^&\s]*")


def redact_url(text: str) -> str:
    """`text` with the password of every URL in it replaced by `***`."""
    text = _URL_SECRET.sub(r"\g<head>***", text)
    return _URL_QUERY_SECRET.sub(r"\1***", text)


def _field(value: object) -> str:
    text = redact_url(str(value))
    return f'"{text}"' if not text or any(c.isspace() for c in text) else text


def log_event(logger: logging.Logger, level: int, event: str, /, **fields: object) -> None:
    """Log `event` with `fields` as key=value; values that hold a URL lose their password."""
    if logger.isEnabledFor(level):
        parts = " ".join(f"{key}={_field(value)}" for key, value in fields.items())
        logger.log(level, "%s %s", event, parts) if parts else logger.log(level, "%s", event)


class StateLog:
    """Logs a condition when it changes, not each time it is seen.

    `set("broker", "down", ...)` logs the first time and whenever the state differs from the last.
    If the state before was seen more than once, it goes out as `before`, and how often it was seen
    as `before_times`.
    """

    def __init__(self, logger: logging.Logger, **fields: object) -> None:
        self._logger = logger
        self._fields = fields
        self._states: dict[str, tuple[str, int]] = {}

    def set(self, name: str, state: str, *, level: int = logging.WARNING, **fields: object) -> bool:
        """Note that `name` is in `state`; True if that is news."""
        old, times = self._states.get(name, ("", 0))
        if old == state:
            self._states[name] = (state, times + 1)
            return False
        self._states[name] = (state, 1)
        if times > 1:
            fields |= {"before": old, "before_times": times}
        log_event(self._logger, level, f"{name}.{state}", **self._fields, **fields)
        return True

    def get(self, name: str) -> str:
        """The last state of `name`, "" if it was never set."""
        return self._states.get(name, ("", 0))[0]


def configure_logging(*, debug: bool = False) -> None:
    """Send the package's log to standard error; for commands, never called by the library."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("rl4sys_stream")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.propagate = False
