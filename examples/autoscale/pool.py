"""The live pool: real processes that take requests from a Redis list, under a real load.

The load is open-loop: requests arrive when a Poisson process says so, however long the queue is,
and what counts is the time since then. A replica boots for as long as `BOOT_STEPS` say; one that
ends without having been told to is counted, and another one is ordered in its place.

Half a second a step and a tenth of a second of patience ask for a machine that has nothing else to
do. On a busy one, time can be stretched: with 4, everything takes four times as long, and a quarter
as many requests come in a second. The queue is the same; only the clock is another one.
"""

import math
import multiprocessing
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Final, Self, cast

import numpy as np
import redis

from examples.autoscale.control import BOOT_STEPS, LATE_S, MIN_REPLICAS, STEP_S, Reading
from examples.autoscale.replica import PoolKeys, Taken, decode_taken, run_replica
from rl4sys_stream.errors import BrokerUnavailableError, StreamError

__all__ = ["LivePool"]

MARGIN_S: Final = 0.05
"""A replica has booted this long before the step in which it is to run."""
BEHIND_S: Final = 0.2
"""Where the machine is further behind than this, the next step begins late instead of short."""
FIRST_BOOT_S: Final = 60.0
STOP_S: Final = 5.0
ALL: Final = 1 << 20


@dataclass(slots=True)
class _Replica:
    """What the pool knows of one replica.

    Attributes:
        process: Its process, once it is started.
        ready_s: When it is to take requests.
        booted: It does.
        until_s: When its present request will be served.
        late: That request was late.
    """

    process: "Future[BaseProcess]"
    ready_s: float
    booted: bool = False
    until_s: float = 0.0
    late: bool = False


class LivePool:
    """A `Pool` of processes. Use it as a context, which ends them.

    Attributes:
        died: Replicas that ended without having been told to, so far.
        behind_s: How much later than planned steps began, in sum: what the machine could not do.
    """

    def __init__(self, url: str, seed: int, stretch: float = 1.0) -> None:
        """Nothing runs before `begin`.

        Args:
            url: Of the broker that carries the requests; may hold a password.
            seed: Of the arrivals.
            stretch: How much slower time passes than it says in `control`.
        """
        self._url = url
        self._stretch = stretch
        self._step_s = STEP_S * stretch
        self._keys = PoolKeys(f"autoscale:{secrets.token_hex(4)}")
        self._rng = np.random.default_rng(seed)
        self._connection = redis.Redis.from_url(url)
        # Forked from a process that has imported everything: milliseconds instead of a second.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", "examples.autoscale.replica"])
        # One thread starts the processes, so that the load does not wait for them.
        self._starter = ThreadPoolExecutor(1, "autoscale-starter")
        self._replicas: list[_Replica] = []
        self._leaving = 0
        # What replicas have said before the thread that starts them knew their process ids.
        self._early: list[Taken] = []
        self._boundary = 0.0
        self.died = 0
        self.behind_s = 0.0

    @property
    def running(self) -> int:
        """See `Pool.running`."""
        return sum(replica.booted for replica in self._replicas) - self._leaving

    @property
    def booting(self) -> tuple[int, ...]:
        """See `Pool.booting`; one whose time has come and that is not there counts as next."""
        slots = [0] * BOOT_STEPS
        for replica in self._replicas:
            if not replica.booted:
                steps = math.ceil((replica.ready_s - self._boundary) / self._step_s - 0.5)
                slots[min(max(steps, 1), BOOT_STEPS) - 1] += 1
        return tuple(slots)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the replicas that take requests."""
        return tuple(
            replica.process.result().pid or 0 for replica in self._replicas if replica.booted
        )

    def begin(self, replicas: int) -> None:
        """See `Pool.begin`.

        Raises:
            StreamError: If they do not come up.
            BrokerUnavailableError: If the broker does not answer.
        """
        self._end_all()
        self._boundary = time.monotonic()
        self._order(replicas, self._boundary)
        patience_s = FIRST_BOOT_S * self._stretch
        deadline = time.monotonic() + patience_s
        while self.running < replicas:
            if time.monotonic() > deadline:
                raise StreamError(
                    f"{self.running} of {replicas} replicas came up in {patience_s:g} s; is the "
                    "machine out of memory or processes, or busy (then --stretch gives them time)?"
                )
            with _translated():
                self._hear()
            self._replace_dead()
            time.sleep(MARGIN_S)
        self._boundary = time.monotonic()

    def scale(self, target: int) -> None:
        """See `Pool.scale`.

        Raises:
            BrokerUnavailableError: If the broker does not answer.
        """
        running, booting = self.running, sum(self.booting)
        if target > running + booting:
            self._order(target - running - booting, self._boundary + BOOT_STEPS * self._step_s)
            return
        less = running + booting - target
        young = sorted(
            (replica for replica in self._replicas if not replica.booted),
            key=lambda replica: -replica.ready_s,
        )
        for replica in young[:less]:
            self._replicas.remove(replica)
            replica.process.add_done_callback(_kill)
        drained = min(less - len(young[:less]), running - MIN_REPLICAS)
        if drained > 0:
            self._leaving += drained
            with _translated():
                self._connection.rpush(self._keys.leave, *["leave"] * drained)

    def serve(self, rate: float) -> Reading:
        """See `Pool.serve`.

        Raises:
            BrokerUnavailableError: If the broker does not answer.
        """
        begin, end = self._boundary, self._boundary + self._step_s
        count = int(self._rng.poisson(rate * STEP_S))
        arrivals = np.sort(self._rng.uniform(begin, end, count)).tolist()
        with _translated():
            self._send(arrivals)
            time.sleep(max(0.0, end - time.monotonic()))
            self._boundary = self._next_boundary(end)
            taken = self._hear()
            waiting = int(self._connection.llen(self._keys.requests))
        died, unanswered = self._replace_dead()
        late = sum(self._is_late(one) for one in taken) + unanswered
        busy_s = sum(one.service_s for one in taken) / self._stretch
        return Reading(count, len(taken), late, waiting, busy_s, died)

    def close(self) -> None:
        """End all replicas; the pool cannot be used again."""
        self._end_all()
        self._starter.shutdown()
        self._connection.close()

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See `close`."""
        self.close()

    def _send(self, arrivals: list[float]) -> None:
        """Put each request into the queue when its time has come."""
        sent = 0
        while sent < len(arrivals):
            time.sleep(max(0.0, arrivals[sent] - time.monotonic()))
            now, due = time.monotonic(), sent
            while due < len(arrivals) and arrivals[due] <= now:
                due += 1
            self._connection.rpush(self._keys.requests, *map(repr, arrivals[sent:due]))
            sent = due

    def _next_boundary(self, end: float) -> float:
        behind = time.monotonic() - end
        if behind <= BEHIND_S * self._stretch:
            return end
        self.behind_s += behind
        return end + behind

    def _order(self, count: int, ready_s: float) -> None:
        for _ in range(count):
            future = self._starter.submit(self._start, ready_s - MARGIN_S)
            self._replicas.append(_Replica(future, ready_s))

    def _start(self, ready_s: float) -> BaseProcess:
        arguments = (self._url, self._keys, ready_s, self._stretch)
        process = self._context.Process(target=run_replica, args=arguments, daemon=True)
        process.start()
        return process

    def _hear(self) -> list[Taken]:
        """What the replicas have said since the last time; those that have booted run."""
        data = cast("list[bytes]", self._connection.lpop(self._keys.taken, ALL) or [])
        heard = [decode_taken(one) for one in data]
        started = [replica for replica in self._replicas if replica.process.done()]
        known = {replica.process.result().pid: replica for replica in started}
        early = []
        for said in [*self._early, *heard]:
            replica = known.get(said.pid)
            if replica is None:
                early.append(said)
                continue
            replica.booted = True
            replica.until_s, replica.late = said.until_s, self._is_late(said)
        # Once all starts have returned, whoever is unknown has been cancelled, or has died.
        self._early = early if len(started) < len(self._replicas) else []
        return [said for said in heard if said.waited_s >= 0.0]

    def _is_late(self, taken: Taken) -> bool:
        return taken.waited_s > LATE_S * self._stretch

    def _replace_dead(self) -> tuple[int, int]:
        """How many have died since the last time, and how many requests in their hands.

        Another one is ordered for each, as whoever runs replicas in production does.
        """
        died = unanswered = 0
        now = time.monotonic()
        for replica in [one for one in self._replicas if one.process.done()]:
            code = replica.process.result().exitcode
            if code is None:
                continue
            self._replicas.remove(replica)
            if code == 0 and self._leaving:
                self._leaving -= 1
                continue
            died += 1
            unanswered += replica.until_s > now - self._step_s and not replica.late
        self.died += died
        if died:
            self._order(died, self._boundary + BOOT_STEPS * self._step_s)
        return died, unanswered

    def _end_all(self) -> None:
        for replica in self._replicas:
            replica.process.add_done_callback(_kill)
        for replica in self._replicas:
            replica.process.result().join(STOP_S)
        self._replicas, self._leaving, self._early = [], 0, []
        keys = self._keys
        with suppress(redis.ConnectionError):  # a broker that is gone has no keys to delete
            self._connection.delete(keys.requests, keys.leave, keys.taken)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.ConnectionError as error:
        raise BrokerUnavailableError(f"the live pool has lost its broker: {error}") from error


def _kill(started: "Future[BaseProcess]") -> None:
    if started.exception() is None:
        started.result().kill()
