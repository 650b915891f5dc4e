"""A queue with replicas as a calendar of events: slow, plain, and written without the twin."""

import heapq
from dataclasses import dataclass, field

import numpy as np

from examples.autoscale.control import BOOT_STEPS, LATE_S, PATIENCE_S, SERVICE_S, STEP_S, Reading

DEPARTURE, ARRIVAL = 0, 1
"""Kinds of events; of two at once the departure comes first."""


@dataclass
class QueueReference:
    """The same requests as a twin of that seed, one event after the other."""

    seed: int
    replicas: int
    now: float = 0.0
    idle: int = 0
    leaving: int = 0
    booting: list[int] = field(default_factory=lambda: [0] * BOOT_STEPS)
    queue: list[tuple[float, float]] = field(default_factory=list)
    events: list[tuple[float, int, float, float]] = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.idle = self.replicas
        self.taken = self.late = 0
        self.busy_s = 0.0

    def scale(self, target: int, minimum: int) -> None:
        """Order, or cancel the youngest and then drain."""
        total = self.replicas + sum(self.booting)
        while target > total:
            self.booting[BOOT_STEPS - 1] += 1
            total += 1
        while target < total:
            young = [slot for slot in range(BOOT_STEPS) if self.booting[slot]]
            if young:
                self.booting[young[-1]] -= 1
            elif self.replicas > minimum:
                self.replicas -= 1
                if self.idle:
                    self.idle -= 1
                else:
                    self.leaving += 1
            total -= 1

    def serve(self, rate: float) -> Reading:
        """Half a second."""
        end = self.now + STEP_S
        arrived = int(self.rng.poisson(rate * STEP_S))
        times = sorted(self.rng.uniform(self.now, end, arrived))
        for time, service in zip(times, self.rng.exponential(SERVICE_S, arrived), strict=True):
            heapq.heappush(self.events, (time, ARRIVAL, time, service))
        self.taken = self.late = 0
        self.busy_s = 0.0
        while self.idle and self.queue:  # those that had just booted
            self._begin_next()
        while self.events and self.events[0][0] < end:
            self.now, kind, arrival, service = heapq.heappop(self.events)
            if kind == ARRIVAL:
                self.queue.append((arrival, service))
            elif self.leaving:
                self.leaving -= 1
            else:
                self.idle += 1
            while self.idle and self.queue:
                self._begin_next()
        self.now = end
        self.replicas += self.booting[0]
        self.idle += self.booting[0]
        self.booting = [*self.booting[1:], 0]
        return Reading(arrived, self.taken, self.late, len(self.queue), self.busy_s)

    def _begin_next(self) -> None:
        arrival, service = self.queue.pop(0)
        waited = self.now - arrival
        self.taken += 1
        self.late += waited > LATE_S
        if waited <= PATIENCE_S:
            self.busy_s += service
            self.idle -= 1
            heapq.heappush(self.events, (self.now + service, DEPARTURE, 0.0, 0.0))
