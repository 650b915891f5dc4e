"""One replica of the live pool, a process of its own: it takes requests from the queue and serves.

In: requests from a Redis list, each the time at which it arrived. Out: one `Taken` a request, in
another list. Serving is sleeping: a handler that waits for a database costs its host no more.
"""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import redis

from examples.autoscale.control import PATIENCE_S, SERVICE_S

__all__ = ["PoolKeys", "Taken", "decode_taken", "run_replica"]

LOOK_S: Final = 1.0
"""Time between two looks at whether the pool is still there."""


@dataclass(frozen=True, slots=True)
class PoolKeys:
    """The lists of one pool.

    Attributes:
        prefix: What no other pool's keys begin with.
    """

    prefix: str

    @property
    def requests(self) -> str:
        """The queue: seconds of the monotonic clock, the oldest first."""
        return f"{self.prefix}:requests"

    @property
    def leave(self) -> str:
        """One element for each replica that is to leave; whoever is free next takes it."""
        return f"{self.prefix}:leave"

    @property
    def taken(self) -> str:
        """What was taken from the queue, and who has booted."""
        return f"{self.prefix}:taken"


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that left the queue.

    Attributes:
        pid: Of the replica.
        waited_s: Seconds in the queue; negative: no request, the replica has booted.
        until_s: When it will have been served, by the monotonic clock.
        service_s: Seconds of service; 0 if it was dropped.
    """

    pid: int
    waited_s: float
    until_s: float
    service_s: float

    def encode(self) -> str:
        """As an element of the list."""
        return f"{self.pid} {self.waited_s:.6f} {self.until_s:.6f} {self.service_s:.6f}"


def decode_taken(data: bytes) -> Taken:
    """What `Taken.encode` wrote."""
    pid, waited_s, until_s, service_s = data.split()
    return Taken(int(pid), float(waited_s), float(until_s), float(service_s))


def run_replica(url: str, keys: PoolKeys, ready_s: float, stretch: float) -> None:
    """Boot until `ready_s` of the monotonic clock, then serve until told to leave.

    Args:
        url: Of the pool's broker.
        keys: Of the pool.
        ready_s: When booting ends; a real service would load its code and fill its caches.
        stretch: How much slower time passes than it says in `control`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the pool's business
    parent, pid = os.getppid(), os.getpid()
    draw = random.Random()  # noqa: S311 - service times
    # A broker that is gone is for the pool to tell.
    with suppress(redis.ConnectionError), redis.Redis.from_url(url) as connection:
        time.sleep(max(0.0, ready_s - time.monotonic()))
        connection.rpush(keys.taken, Taken(pid, -1.0, 0.0, 0.0).encode())
        while os.getppid() == parent:
            popped = connection.blpop([keys.leave, keys.requests], timeout=LOOK_S)
            if popped is None:
                continue
            key, data = popped
            if key.decode() == keys.leave:
                return
            begun = time.monotonic()
            waited = max(0.0, begun - float(data))
            dropped = waited > PATIENCE_S * stretch
            service = 0.0 if dropped else draw.expovariate(1.0 / SERVICE_S) * stretch
            connection.rpush(keys.taken, Taken(pid, waited, begun + service, service).encode())
            time.sleep(max(0.0, begun + service - time.monotonic()))
