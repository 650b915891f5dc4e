"""One worker a client: an expiring lease for liveness, a fencing token for safety.

The lease says who is alive and may expire at any time. The fence never expires: a commit under
another token than the fence's is refused, so a worker that was paused past its lease can do no
harm, whatever the clocks say.
"""

import secrets
from dataclasses import dataclass

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.scripts import run_script

__all__ = ["Lease", "LeaseState", "read_lease", "token_epoch"]


def token_epoch(token: str) -> int:
    """The epoch of a token `epoch:nonce`; 0 where it is no token of this system."""
    head = token.partition(":")[0]
    return int(head) if head.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who holds a client.

    Attributes:
        holder: Token of the live worker, "" if nobody holds the lease.
        fence: Token whose commits are accepted, "" if there was never a worker.
        ttl_ms: Milliseconds until the lease expires, 0 if nobody holds it.
    """

    holder: str
    fence: str
    ttl_ms: int


def read_lease(broker: Broker, keys: ClientKeys) -> LeaseState:
    """Who holds the client now."""
    holder, fence = broker.call("GET", keys.lease), broker.call("GET", keys.fence)
    ttl = int(broker.call("PTTL", keys.lease))
    return LeaseState((holder or b"").decode(), (fence or b"").decode(), max(ttl, 0))


class Lease:
    """The lease of one client, from the side of one would-be holder."""

    def __init__(self, broker: Broker, keys: ClientKeys, *, ttl_s: float) -> None:
        """Nothing is taken yet.

        Args:
            broker: Where the lease lives.
            keys: Of the client.
            ttl_s: Seconds that the lease lives without renewal.
        """
        self._broker = broker
        self._keys = keys
        self._ttl_ms = int(ttl_s * 1000)
        self.token = ""

    def acquire(self, *, force: bool = False) -> bool:
        """Take the lease under a new token; False while somebody else holds it.

        Args:
            force: Take it over from a live holder, whose commits are refused from then on.

        Raises:
            BrokerError: Safe to retry; a token handed out in a lost reply is simply never used.
        """
        keys = self._keys
        token = run_script(
            self._broker,
            "acquire",
            [keys.lease, keys.epoch, keys.fence, keys.head, keys.spec],
            [secrets.token_hex(8), self._ttl_ms, int(force)],
        )
        self.token = token.decode() if token else ""
        return bool(token)

    def renew(self) -> bool:
        """Keep the lease; False if a newer worker owns the client. Safe to retry."""
        reply = run_script(
            self._broker,
            "renew",
            [self._keys.lease, self._keys.fence],
            [self.token, self._ttl_ms],
        )
        return bool(reply)

    def release(self) -> None:
        """Give the lease back, if it is still held. Safe to retry."""
        if self.token:
            run_script(self._broker, "release", [self._keys.lease], [self.token])
