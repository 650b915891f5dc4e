"""The twin: the pool as a discrete-event simulation, thousands of times faster than the pool.

Requests and service times are drawn by the step, whatever the controller does: with one seed every
controller meets the same requests.
"""

import heapq
from collections import deque

import numpy as np

from examples.autoscale.control import (
    BOOT_STEPS,
    LATE_S,
    MIN_REPLICAS,
    PATIENCE_S,
    SERVICE_S,
    STEP_S,
    Reading,
)

__all__ = ["Twin"]


class Twin:
    """A `Pool` in simulated time.

    As in the live pool, a request is assigned when a replica becomes free, so replicas that boot
    shorten the queue that is there; whoever is drained finishes its request first.
    """

    def __init__(self, seed: int) -> None:
        """Args: seed: Of arrivals and service times."""
        self._rng = np.random.default_rng(seed)
        self._now = 0.0
        self._free: list[float] = []
        """A heap: when each running replica will be, or was, free."""
        self._queue: deque[tuple[float, float]] = deque()
        """Arrival and service time of the requests that wait."""
        self._booting = [0] * BOOT_STEPS

    @property
    def running(self) -> int:
        """See `Pool.running`."""
        return len(self._free)

    @property
    def booting(self) -> tuple[int, ...]:
        """See `Pool.booting`."""
        return tuple(self._booting)

    def begin(self, replicas: int) -> None:
        """See `Pool.begin`."""
        self._now = 0.0
        self._free = [0.0] * replicas
        self._queue.clear()
        self._booting = [0] * BOOT_STEPS

    def scale(self, target: int) -> None:
        """See `Pool.scale`."""
        more = target - len(self._free) - sum(self._booting)
        if more > 0:
            self._booting[-1] += more
            return
        less = -more
        for slot in reversed(range(BOOT_STEPS)):
            cancelled = min(less, self._booting[slot])
            self._booting[slot] -= cancelled
            less -= cancelled
        for _ in range(min(less, len(self._free) - MIN_REPLICAS)):
            heapq.heappop(self._free)  # whoever is free next leaves

    def serve(self, rate: float) -> Reading:
        """See `Pool.serve`."""
        begin, end = self._now, self._now + STEP_S
        arrived = int(self._rng.poisson(rate * STEP_S))
        arrivals = np.sort(self._rng.uniform(begin, end, arrived)).tolist()
        services = self._rng.exponential(SERVICE_S, arrived).tolist()
        self._queue.extend(zip(arrivals, services, strict=True))
        taken, late, busy_s = self._take(end)
        self._now = end
        for _ in range(self._booting[0]):
            heapq.heappush(self._free, end)
        self._booting = [*self._booting[1:], 0]
        return Reading(arrived, taken, late, len(self._queue), busy_s)

    def _take(self, end: float) -> tuple[int, int, float]:
        """Requests that begin before `end`: how many, how many late, and their service time."""
        free, queue, replace = self._free, self._queue, heapq.heapreplace
        taken, late, busy_s = 0, 0, 0.0
        while queue:
            arrival, service = queue[0]
            begin = free[0]
            if begin < arrival:  # noqa: PLR1730 - a call of max for each request is slower
                begin = arrival
            if begin >= end:
                break
            queue.popleft()
            taken += 1
            waited = begin - arrival
            if waited > LATE_S:
                late += 1
                if waited > PATIENCE_S:
                    continue
            replace(free, begin + service)
            busy_s += service
        return taken, late, busy_s
