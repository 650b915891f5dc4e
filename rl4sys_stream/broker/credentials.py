"""A broker's password: from the environment, or of a broker that this user started on this machine.

`rl4sys-stream up` gives its broker a random password. Applications of the same user on the same
machine find it in a file that only that user can read, so that `localhost:PORT` is all that a
configuration file has to say.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rl4sys_stream.errors import ConfigError

__all__ = [
    "PASSWORD_ENV",
    "PASSWORD_FILE_ENV",
    "forget_password",
    "recall_password",
    "remember_password",
    "stated_password",
]

PASSWORD_ENV: Final = "RL4SYS_STREAM_REDIS_PASSWORD"  # noqa: S105 - a variable's name
PASSWORD_FILE_ENV: Final = "RL4SYS_STREAM_REDIS_PASSWORD_FILE"  # noqa: S105 - a variable's name
STATE_DIR_ENV: Final = "RL4SYS_STREAM_STATE_DIR"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _file(port: int, environ: Mapping[str, str]) -> Path:
    if chosen := environ.get(STATE_DIR_ENV):
        base = Path(chosen)
    else:
        state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")) / ".local" / "state"
        base = Path(state).expanduser() / "rl4sys-stream"
    return base / "brokers" / str(port)


def remember_password(port: int, password: str, environ: Mapping[str, str]) -> Path:
    """Store the password of the broker at a loopback port; returns the file.

    Raises:
        ConfigError: If the file cannot be written.
    """
    path = _file(port, environ)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password)
    except OSError as error:
        raise ConfigError(
            f"cannot keep the broker's password in {path.parent} ({error.strerror}); let "
            f"{STATE_DIR_ENV} name a folder that can be written"
        ) from error
    return path


def forget_password(port: int, environ: Mapping[str, str]) -> None:
    """Remove the file, if there is one."""
    with contextlib.suppress(OSError):
        _file(port, environ).unlink(missing_ok=True)


def recall_password(host: str, port: int, environ: Mapping[str, str]) -> str | None:
    """The password of the broker at `host`:`port`, None where this user started none there."""
    if host not in LOOPBACK:
        return None
    try:
        return _file(port, environ).read_text(encoding="utf-8") or None
    except (OSError, UnicodeDecodeError):
        return None


def stated_password(environ: Mapping[str, str]) -> str | None:
    """The one that the environment states or names a file of, None if it does neither.

    Raises:
        ConfigError: If the file cannot be read.
    """
    if password := environ.get(PASSWORD_ENV):
        return password
    if name := environ.get(PASSWORD_FILE_ENV):
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the password: {error}", path=PASSWORD_FILE_ENV
            ) from None
    return None
