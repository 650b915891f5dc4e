"""What the broker says of itself: version, role, persistence, memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.errors import BrokerError, BrokerUnavailableError, BrokerUnsuitableError

__all__ = ["ServerFacts", "read_facts", "read_identity", "require_suitable", "server_identity"]

MIN_REDIS: Final = (7, 0)
MIN_VALKEY: Final = (8, 0)

IDENTITY_SECTIONS: Final = ("server", "replication")
_IDENTITY_FIELDS: Final = ("run_id", "master_replid", "role")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the broker says of itself.

    Attributes:
        product: redis or valkey.
        version: As it prints it.
        role: master or slave.
        maxmemory_policy: "" where the broker does not say.
        aof: Whether the append-only file is on.
        used_bytes: Memory in use.
        max_bytes: Memory limit, 0 for none.
    """

    product: str
    version: str
    role: str
    maxmemory_policy: str
    aof: bool
    used_bytes: int
    max_bytes: int

    @property
    def version_tuple(self) -> tuple[int, int]:
        """(major, minor); (0, 0) where the version does not parse."""
        parts = self.version.split(".")
        try:
            return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
        except ValueError:
            return 0, 0

    @property
    def minimum(self) -> tuple[int, int]:
        """The oldest version of this product that has every command in use."""
        return MIN_VALKEY if self.product == "valkey" else MIN_REDIS

    @property
    def new_enough(self) -> bool:
        """Whether it has every command in use."""
        return self.version_tuple >= self.minimum


def read_facts(broker: Broker) -> ServerFacts:
    """Ask the broker. Raises BrokerError if it does not answer or does not allow INFO."""
    info: Mapping[str, Any] = broker.call("INFO")
    valkey = info.get("valkey_version")
    return ServerFacts(
        product="valkey" if valkey else "redis",
        version=str(valkey or info.get("redis_version", "")),
        role=str(info.get("role", "")),
        maxmemory_policy=str(info.get("maxmemory_policy", "")),
        aof=bool(info.get("aof_enabled", 0)),
        used_bytes=int(info.get("used_memory", 0)),
        max_bytes=int(info.get("maxmemory", 0)),
    )


def server_identity(info: Mapping[str, Any]) -> str:
    """Which server answers and whose history of writes it has, from its answer to INFO.

    The run id changes with every restart. The replication id changes where a running server takes
    over another's writes and forgets its own (`REPLICAOF`), when it becomes a primary again, and
    once, harmlessly, when it gets its first replica. The role tells before such a change is over.

    Returns:
        The lines of INFO that say so, with a blank between them.
    """
    return " ".join(f"{name}:{info[name]}" for name in _IDENTITY_FIELDS if name in info)


def read_identity(broker: Broker) -> str:
    """The identity of the server that answers; see `server_identity`.

    Returns:
        "" where this user is not told.

    Raises:
        BrokerUnavailableError: If it cannot be reached.
    """
    try:
        info: Mapping[str, Any] = broker.call("INFO", *IDENTITY_SECTIONS)
    except BrokerUnavailableError:
        raise
    except BrokerError:
        return ""
    return server_identity(info)


def require_suitable(broker: Broker) -> ServerFacts | None:
    """The facts of a broker that the pipeline can run on; None where it does not tell them.

    Raises:
        BrokerUnsuitableError: If it is too old, a replica, or evicts keys: an evicted stream or
            head is lost data.
        BrokerUnavailableError: If it cannot be reached.
    """
    broker.ping()
    try:
        facts = read_facts(broker)
    except BrokerUnsuitableError:
        raise
    except BrokerError:
        # Managed services forbid INFO to some users; `doctor` says what could not be checked.
        return None
    if not facts.new_enough:
        major, minor = facts.minimum
        raise BrokerUnsuitableError(
            f"{broker.where} is {facts.product} {facts.version}; {facts.product} {major}.{minor} "
            "or newer is needed: upgrade it, or use another broker"
        )
    if facts.role == "slave":
        raise BrokerUnsuitableError(f"{broker.where} is a replica; use the primary's URL")
    if facts.maxmemory_policy not in {"", "noeviction"}:
        raise BrokerUnsuitableError(
            f"{broker.where} evicts keys under memory pressure (maxmemory-policy is "
            f"{facts.maxmemory_policy}): CONFIG SET maxmemory-policy noeviction"
        )
    return facts
