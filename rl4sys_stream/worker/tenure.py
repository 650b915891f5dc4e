"""What one tenure of a worker works with."""

from collections.abc import Callable
from dataclasses import dataclass

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.clock import Clock
from rl4sys_stream.worker.health import Health
from rl4sys_stream.worker.isolation import Attempts
from rl4sys_stream.worker.plan import WorkerPlan

__all__ = ["Tenure"]


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a session works with; all of it belongs to this session alone.

    Attributes:
        broker: For everything but the blocking reads and the renewals.
        keys: Of the client.
        plan: What to train.
        token: Fencing token of the held lease.
        server: Identity of the server, asked before anything else was read; "" where it is not
            told.
        clock: For stamps and intervals.
        health: Renews the lease meanwhile.
        stopping: True once the process was asked to stop.
        attempts: Remembers which updates were begun, also when this process does not outlive one.
        pause: Waits that many seconds, or less if asked to stop.
    """

    broker: Broker
    keys: ClientKeys
    plan: WorkerPlan
    token: str
    server: str
    clock: Clock
    health: Health
    stopping: Callable[[], bool]
    attempts: Attempts
    pause: Callable[[float], None]
