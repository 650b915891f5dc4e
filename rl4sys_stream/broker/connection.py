"""Connections to the broker: where it is, how to log in, requests, appends, notices.

redis-py's client-side retry stays off everywhere: it resends appends whose reply was lost, which
duplicates them without a word, and it reconnects unnoticed, which hides a restarted server.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from rl4sys_stream.broker.credentials import recall_password, stated_password
from rl4sys_stream.broker.translation import translate, translated
from rl4sys_stream.config.address import MAX_URL_CHARS
from rl4sys_stream.errors import (
    BrokerError,
    ConfigError,
)
from rl4sys_stream.telemetry import redact_url

__all__ = [
    "DEFAULT_URL",
    "URL_ENV",
    "AppendConnection",
    "Broker",
    "BrokerAddress",
    "Fields",
    "Subscription",
]

URL_ENV: Final = "RL4SYS_STREAM_REDIS_URL"
DEFAULT_URL: Final = "redis://localhost:6379"

Fields = Sequence[tuple[bytes, bytes]]
"""Field-value pairs of one stream entry, in order."""

_URL_OPTIONS: Final = frozenset(
    {"host", "port", "path", "db", "username", "password", "connection_class"}
)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is and how to log in; printing it never shows the password.

    Attributes:
        public_url: The URL with the password replaced by `***`.
    """

    public_url: str
    secret_url: str = field(repr=False)
    """As it was given, password included: for the environment of a child process, never for a log
    or an argument list."""
    _options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str] | None = None) -> "BrokerAddress":
        """Parse `redis://`, `rediss://` (TLS) or `unix://`.

        A URL without a password takes it from `RL4SYS_STREAM_REDIS_PASSWORD`, or from the file
        that `RL4SYS_STREAM_REDIS_PASSWORD_FILE` names, or from what `rl4sys-stream up` left for
        this user and port.

        Raises:
            ConfigError: If the URL or the password file cannot be read.
        """
        environ = os.environ if environ is None else environ
        if len(url) > MAX_URL_CHARS or not url.isprintable():
            raise ConfigError(
                f"a broker URL has at most {MAX_URL_CHARS} printable characters; "
                "percent-encode others"
            )
        try:
            options = dict(parse_url(url))
        except ValueError as error:
            # The parser quotes what it stumbled over, and that may be a piece of the password.
            why = "is its password percent-encoded?" if "@" in url else error
            raise ConfigError(
                f"{_public(url)!r} is no broker URL ({why}); "
                "write redis://HOST:PORT/DB, rediss://… for TLS, or unix:///path/to/socket"
            ) from None
        if unknown := sorted(name for name in options if not _is_option(name)):
            raise ConfigError(
                f"{_public(url)!r} has the unknown option {unknown[0]!r}; TLS options begin with "
                "ssl_, everything else has a setting of its own"
            )
        _check_options(url, options)
        if not options.get("password"):
            host, port = str(options.get("host", "localhost")), int(options.get("port", 6379))
            found = stated_password(environ)
            if found is None and "path" not in options:
                found = recall_password(host, port, environ)
            if found:
                options["password"] = found
        return cls(_public(url), url, options)

    def connection(self, *, timeout_s: float, name: str) -> redis.Connection:
        """An unconnected connection of its own, never shared and never retried."""
        options = dict(self._options)
        kind = options.pop("connection_class", None)
        if kind is None and "path" in options:
            kind = redis.UnixDomainSocketConnection
        kind = kind or redis.Connection
        options.setdefault("socket_timeout", timeout_s)
        if kind is not redis.UnixDomainSocketConnection:
            options.setdefault("socket_connect_timeout", timeout_s)
        return cast(
            "redis.Connection",
            kind(
                **options,
                protocol=3,
                legacy_responses=False,
                retry=Retry(NoBackoff(), 0),
                client_name=name,
                driver_info=None,
            ),
        )

    def client(self, *, timeout_s: float, name: str) -> "redis.Redis":
        """A redis-py client over connections of this kind."""
        options = dict(self._options)
        options.setdefault("socket_timeout", timeout_s)
        kind = options.pop("connection_class", None)
        if kind is None and "path" in options:
            kind = redis.UnixDomainSocketConnection
        if kind is not redis.UnixDomainSocketConnection:
            options.setdefault("socket_connect_timeout", timeout_s)
        pool = redis.ConnectionPool(
            connection_class=kind or redis.Connection,
            **options,
            protocol=3,
            legacy_responses=False,
            retry=Retry(NoBackoff(), 0),
            client_name=name,
            driver_info=None,
        )
        return redis.Redis(connection_pool=pool, retry=Retry(NoBackoff(), 0))


def _check_options(url: str, options: dict[str, Any]) -> None:
    """Refuse what a connection would stumble over when it is made, such as a port in words."""
    try:
        if "port" in options:  # as a query parameter it is a string still
            options["port"] = int(options["port"])
        BrokerAddress(_public(url), url, options).connection(timeout_s=1.0, name="check")
    # TypeError: ssl_ options without rediss://.
    except (redis.RedisError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{_public(url)!r} is no broker URL: an option in it is wrong ({_public(str(error))})"
        ) from None


def _public(url: str) -> str:
    """`url` with all that may be its password replaced, whatever characters that has.

    `redact_url` finds URLs within a text, so it stops at spaces; here the whole text is the URL,
    and everything up to the last @ belongs to the login.
    """
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    if at and colon:
        url = f"{scheme}{separator}{user}:***@{place}"
    return redact_url(url)


def _is_option(name: str) -> bool:
    return name in _URL_OPTIONS or name.startswith("ssl_")


class Broker:
    """Requests to the broker, one method a kind of request; raises only the package's errors.

    Thread-safe: each call takes a connection of the pool for as long as it lasts.
    """

    def __init__(self, address: BrokerAddress, *, timeout_s: float = 5.0, name: str) -> None:
        """Prepare; nothing is sent yet.

        Args:
            address: Where the broker is.
            timeout_s: Longest wait for a connection or a reply, in seconds.
            name: What CLIENT LIST shows.
        """
        self.address = address
        self.where = f"the broker at {address.public_url}"
        self.redis = address.client(timeout_s=timeout_s, name=name)
        """For the other modules of this package only."""

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies vary
        """One command as it is, with the errors translated."""
        with translate(self.where):
            return self.redis.execute_command(*command)

    def ping(self) -> None:
        """Raises BrokerUnavailableError or BrokerAuthError if the broker does not answer."""
        with translate(self.where):
            self.redis.ping()

    def hash_all(self, key: str) -> dict[bytes, bytes]:
        """All fields of a hash, {} if there is none."""
        with translate(self.where):
            return cast("dict[bytes, bytes]", self.redis.hgetall(key))

    def hash_get(self, key: str, *names: str) -> list[bytes | None]:
        """Some fields of a hash, None for each that is missing."""
        with translate(self.where):
            return cast("list[bytes | None]", self.redis.hmget(key, list(names)))

    def hash_get_each(
        self, requests: Sequence[tuple[str, Sequence[str]]]
    ) -> list[list[bytes | None]]:
        """`hash_get` for each (key, names), in one round trip."""
        with translate(self.where), self.redis.pipeline(transaction=False) as pipe:
            for key, names in requests:
                pipe.hmget(key, list(names))
            return cast("list[list[bytes | None]]", pipe.execute())

    def hash_set(self, key: str, fields: Mapping[str, bytes | str | int]) -> None:
        """Set fields of a hash."""
        with translate(self.where):
            mapping: dict[Any, Any] = dict(fields)
            self.redis.hset(key, mapping=mapping)

    def scan(self, pattern: str) -> Iterator[str]:
        """Names of the keys that match, in no order, each at least once."""
        with translate(self.where):
            for key in self.redis.scan_iter(match=pattern, count=500):
                yield key.decode()

    def unlink(self, *keys: str) -> int:
        """Remove keys; how many there were."""
        if not keys:
            return 0
        with translate(self.where):
            return int(self.redis.unlink(*keys))

    def close(self) -> None:
        """Close the pool's connections; a later call opens new ones."""
        _close(self.redis)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AppendConnection:
    """One connection that appends to streams, with commands packed by hand.

    Seven to ten times the throughput of redis-py's pipeline for small entries. Not thread-safe:
    the sender thread owns it. After any BrokerUnavailableError the connection is closed, and what
    was in flight may or may not have arrived.
    """

    def __init__(self, address: BrokerAddress, *, timeout_s: float, name: str) -> None:
        """Prepare; `connect` opens it."""
        self._connection = address.connection(timeout_s=timeout_s, name=name)
        self._where = f"the broker at {address.public_url}"

    def connect(self) -> None:
        """Open the connection. Raises BrokerUnavailableError or BrokerAuthError."""
        with translate(self._where):
            self._connection.connect()

    def append(
        self, key: str, entries: Sequence[Fields]
    ) -> tuple[list[bytes | BrokerError], int | None]:
        """XADD each of `entries` in order, in one round trip.

        Returns:
            For each entry its id or the broker's refusal, and the length of the stream after, None
            where the broker does not tell it to this user.

        Raises:
            BrokerUnavailableError: If the connection broke; any prefix may have arrived.
        """
        stream = key.encode()
        head = b"$4\r\nXADD\r\n" + _bulk(stream) + b"$1\r\n*\r\n"
        parts: list[bytes] = []
        for entry in entries:
            parts.append(b"*%d\r\n" % (3 + 2 * len(entry)))
            parts.append(head)
            for name, value in entry:
                parts.append(_bulk(name))
                parts.append(b"$%d\r\n" % len(value))
                parts.append(value)
                parts.append(b"\r\n")
        parts.append(b"*2\r\n$4\r\nXLEN\r\n" + _bulk(stream))
        with self._closing_on_error(), translate(self._where):
            self._connection.send_packed_command([b"".join(parts)])
            replies = [self._reply() for _ in entries]
            length = self._reply()
        # The entries are in, whatever the broker thinks of the question behind them.
        known = None if isinstance(length, BrokerError) else int(length)
        return cast("list[bytes | BrokerError]", replies), known

    def request(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - replies vary
        """One ordinary command on this connection."""
        with self._closing_on_error(), translate(self._where):
            self._connection.send_command(*command)
            reply = self._reply()
        if isinstance(reply, BrokerError):
            raise reply
        return reply

    def info(self, *sections: str) -> Mapping[str, str]:
        """What the server says of itself, field by field; as for `request`."""
        text = self.request("INFO", *sections).decode("utf-8", "replace")
        pairs = (line.partition(":") for line in text.splitlines())
        return {name: value for name, colon, value in pairs if colon}

    def _reply(self) -> Any:  # noqa: ANN401 - replies vary
        try:
            return self._connection.read_response()
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except redis.RedisError as error:
            # A refusal of one command leaves the replies of the others to be read.
            return translated(self._where, error)

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Replies may still be under way: nothing on this connection can be trusted any more.
            self.close()
            raise

    def close(self) -> None:
        """Close; `connect` opens it again."""
        self._connection.disconnect()


def _close(client: redis.Redis) -> None:
    # A client does not close the connections of a pool that it was given.
    client.connection_pool.disconnect()
    client.close()


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Subscription:
    """One connection that listens to one channel. Not thread-safe."""

    def __init__(
        self, address: BrokerAddress, channel: str, *, timeout_s: float, name: str
    ) -> None:
        """Connect and subscribe.

        Raises:
            BrokerUnavailableError: If the broker cannot be reached.
        """
        self._where = f"the broker at {address.public_url}"
        self._client = address.client(timeout_s=timeout_s, name=name)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        try:
            with translate(self._where):
                self._pubsub.subscribe(channel)
                # The confirmation: from here on no notice is missed, nor kept waiting by it.
                self._pubsub.get_message(timeout=timeout_s)
        except BrokerError:
            self.close()
            raise

    def get(self, timeout_s: float) -> bytes | None:
        """The next notice, or None when `timeout_s` is over.

        Raises:
            BrokerUnavailableError: If the connection broke; notices may have been lost.
        """
        with translate(self._where):
            message = self._pubsub.get_message(timeout=timeout_s)
        return cast("bytes", message["data"]) if message else None

    def close(self) -> None:
        """Close the connection."""
        self._pubsub.close()
        _close(self._client)
