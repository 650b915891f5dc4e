"""Where the broker is, as a URL; secrets stay out of files."""

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

from rl4sys_stream.config.schema import shown
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.telemetry import redact_url

__all__ = ["MAX_URL_CHARS", "check_redis_url", "url_from_server_address"]

SCHEMES: Final = ("redis", "rediss", "unix")
PASSWORD_VARIABLES: Final = "RL4SYS_STREAM_REDIS_PASSWORD or RL4SYS_STREAM_REDIS_PASSWORD_FILE"  # noqa: S105 - names of variables, not a password

MAX_URL_CHARS: Final = 4096
_DEFAULT_PORT: Final = 6379
_MAX_PORT: Final = 65_535
_SERVER_ADDRESS: Final = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
)


def without_secrets(text: str) -> str:
    """`text` without what stands between a scheme and the last "@", and without `password=`.

    Broader than `redact_url`, because what is shown here may be no well-formed URL.
    """
    head, at, tail = text.rpartition("@")
    scheme = head.partition("://")[0] if "://" in head else ""
    return redact_url(f"{scheme}://***@{tail}" if at else text)


def check_redis_url(url: object, *, allow_password: bool, path: str = "redis_url") -> str:
    """`url`, if it names a broker.

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS) or `unix:///path`.
        allow_password: False for what stands in a file or a process list.
        path: Dotted path of the setting, for messages.

    Raises:
        ConfigError: If it is no such URL, or holds a password where none may be. The message
            never shows the password.
    """
    if not isinstance(url, str):
        raise ConfigError(
            f"expected a URL such as redis://localhost:6379, not {shown(url)}", path=path
        )
    if len(url) > MAX_URL_CHARS or not url.isprintable():
        # Before anything looks for the password in it: that takes quadratic time.
        raise ConfigError(
            f"expected a URL of at most {MAX_URL_CHARS} printable characters; "
            "percent-encode others",
            path=path,
        )
    safe = without_secrets(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text would quote the password
        raise ConfigError(
            f"{safe!r} is no URL; percent-encode special characters in a user or password",
            path=path,
        ) from None
    if parts.scheme not in SCHEMES:
        hint = "; for host:port alone use server_address" if "://" not in url else ""
        raise ConfigError(
            f"expected a URL that begins with redis://, rediss:// or unix://, not {safe!r}{hint}",
            path=path,
        )
    if parts.scheme == "unix" and not parts.path:
        raise ConfigError(f"{safe!r} names no socket: unix:///path/to/socket", path=path)
    if parts.scheme != "unix" and (not parts.hostname or port == 0):
        raise ConfigError(f"{safe!r} names no host and port: redis://host:port", path=path)
    if not allow_password and (parts.password or "password" in parse_qs(parts.query)):
        raise ConfigError(
            f"a password may not stand here, where others can read it: leave it out of the URL "
            f"and set {PASSWORD_VARIABLES}",
            path=path,
        )
    return url


def url_from_server_address(address: object, *, path: str = "server_address") -> str:
    """The URL of the broker at `address`, "host:port" or "host" (port 6379).

    Raises:
        ConfigError: If it is neither.
    """
    safe: object = address
    if isinstance(address, str):
        safe = without_secrets(address) if len(address) <= MAX_URL_CHARS else "a longer text"
    match = _SERVER_ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if match is None:
        raise ConfigError(
            f'expected the broker\'s "host:port", not {shown(safe)}; a URL goes '
            f"into communication.redis_url",
            path=path,
        )
    port = int(match["port"] or _DEFAULT_PORT)
    if not 1 <= port <= _MAX_PORT:
        raise ConfigError(f"expected a port from 1 to {_MAX_PORT}, not {port}", path=path)
    return f"redis://{match['host']}:{port}"
