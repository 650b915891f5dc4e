"""redis-py's errors as the package's own: the kind says what may be done, the text what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis

from rl4sys_stream.broker.credentials import PASSWORD_ENV, PASSWORD_FILE_ENV
from rl4sys_stream.errors import (
    BrokerAuthError,
    BrokerError,
    BrokerFullError,
    BrokerUnavailableError,
    BrokerUnsuitableError,
)

__all__ = ["translate", "translated"]

_INTO_ENV: Final = f"into {PASSWORD_ENV}, or its file's path into {PASSWORD_FILE_ENV}"
_NEXT_MOVE: Final = "run `rl4sys-stream doctor` to see what is wrong"


@contextmanager
def translate(where: str) -> Iterator[None]:
    """Turn redis-py's errors into ours; `where` names the broker in the message."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise translated(where, error) from error


def translated(where: str, error: redis.RedisError | OSError) -> BrokerError:
    """What `error` is in this package; `where` names the broker in the message."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return _auth_error(where, str(error))
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return BrokerFullError(
            f"{where} is out of memory: raise maxmemory or let the workers catch up"
        )
    if isinstance(error, redis.ReadOnlyError):
        return BrokerUnsuitableError(f"{where} is a read-only replica; use the primary's URL")
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
        why = str(error).rstrip(".")
        return BrokerUnavailableError(f"cannot reach {where}: {why}; {_NEXT_MOVE}")
    return _response_error(where, error)


def _response_error(where: str, error: redis.RedisError) -> BrokerError:
    text = str(error)
    if "NOAUTH" in text or "WRONGPASS" in text or "NOPERM" in text:
        return _auth_error(where, text)
    if text.startswith(("LOADING", "MASTERDOWN", "BUSY ", "TRYAGAIN", "CLUSTERDOWN")):
        return BrokerUnavailableError(f"{where} is not ready: {text}")
    if "HELLO" in text and "unknown command" in text.lower():
        return BrokerUnsuitableError(
            f"{where} is too old: it does not know HELLO; Redis 7.0 or Valkey 8.0 is needed"
        )
    if text.startswith("OOM"):
        return BrokerFullError(f"{where} is out of memory: {text}")
    if text.startswith(("READONLY", "MISCONF")):
        return BrokerUnsuitableError(f"{where} does not take writes: {text}")
    if text.startswith("NOREPLICAS"):
        return BrokerUnsuitableError(
            f"{where} does not take writes while it has fewer replicas than min-replicas-to-write "
            "asks for: bring one back, or lower that"
        )
    return BrokerError(f"{where} refused: {text}")


def _auth_error(where: str, text: str) -> BrokerAuthError:
    """What the broker's refusal `text` means; its own words for the first are about HELLO."""
    folded = text.lower()
    if any(hint in folded for hint in ("noauth", "hello must be called", "authentication req")):
        return BrokerAuthError(f"{where} asks for a password and got none; put it {_INTO_ENV}")
    if "permission" in folded or "noperm" in folded:
        return BrokerAuthError(f"{where} refused: {text}; its ACL must let that user do it")
    return BrokerAuthError(
        f"{where} refused the user or its password; put the right one {_INTO_ENV}"
    )
