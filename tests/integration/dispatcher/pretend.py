"""Time that passes on demand, and worker processes that only pretend."""

import random
import subprocess
import threading
from itertools import count

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import (
    Registration,
    WorkerReport,
    make_definition,
    read_worker_report,
    register,
)
from rl4sys_stream.config import ClientSpec, PPOParameters, WorkerSettings
from rl4sys_stream.dispatcher.loop import Dispatcher
from rl4sys_stream.dispatcher.ward import DispatcherSettings
from rl4sys_stream.spaces import Box, Discrete

SPEC = ClientSpec(observation_space=Box((2,)), action_space=Discrete(3))


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wall_ms(self) -> int:
        """Milliseconds."""
        return int(self.now * 1000)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Time passes at once."""
        self.now += timeout_s
        return event.is_set()


class PretendProcess:
    """A child that ends when the test says so."""

    pids = count(50_000)

    def __init__(self, client: str, *, stubborn: bool = False) -> None:
        self.client = client
        self.pid = next(self.pids)
        self.code: int | None = None
        self.stubborn = stubborn
        self.signals: list[str] = []

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.code

    def terminate(self) -> None:
        """SIGTERM; a stubborn one does not care."""
        self.signals.append("TERM")
        if not self.stubborn:
            self.code = 0

    def kill(self) -> None:
        """SIGKILL."""
        self.signals.append("KILL")
        self.code = -9

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code."""
        if self.code is None:
            raise subprocess.TimeoutExpired(self.client, timeout or 0.0)
        return self.code


class World:
    """A dispatcher, its time, and what it started."""

    def __init__(self, broker: Broker, *, capacity: int = 64) -> None:
        self.broker = broker
        self.clock = ManualClock()
        self.started: list[PretendProcess] = []
        self.no_room = 0
        self.stubborn = False
        self.settings = DispatcherSettings(capacity=capacity)
        self.dispatcher = Dispatcher(
            broker,
            self.spawn,
            settings=self.settings,
            clock=self.clock,
            rng=random.Random(0),
        )

    def spawn(self, client: str) -> PretendProcess:
        """Pretend to start a worker."""
        if self.no_room:
            self.no_room -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        process = PretendProcess(client, stubborn=self.stubborn)
        self.started.append(process)
        return process

    def register(self, client: str) -> Registration:
        """As an application would."""
        keys = ClientKeys(client)
        definition = make_definition(PPOParameters(), WorkerSettings())
        return register(self.broker, keys, SPEC, definition, wall_ms=1)

    def tick(self, after_s: float = 0.0) -> None:
        """Let time pass, and the dispatcher look."""
        self.clock.now += after_s
        self.dispatcher.tick()

    def fail(self, code: int = 1, *, times: int = 1) -> None:
        """The newest worker ends with `code`, and the next one after it."""
        for _ in range(times):
            self.started[-1].code = code
            self.tick()
            self.tick(after_s=self.settings.max_backoff_s)

    def report(self, client: str = "lander") -> WorkerReport:
        """What `status` would read."""
        found = read_worker_report(self.broker, ClientKeys(client))
        assert found is not None
        return found
