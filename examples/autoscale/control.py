"""The control loop: what a controller sees, what it may do, and what it costs.

One step of the loop is half a second of a pool of replicas that answer requests. The twin and the
live pool differ in what is behind `Pool`; everything here is shared by them, so a policy cannot
tell which of the two it controls.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from examples.autoscale.demand import DAY_STEPS, HISTORY, WEEK_STEPS, Demand, Span
from rl4sys_stream import Box, Discrete

__all__ = [
    "ACTION_SPACE",
    "BOOT_STEPS",
    "CHANGES",
    "LATE_COST",
    "LATE_S",
    "MAX_REPLICAS",
    "MIN_REPLICAS",
    "OBSERVATION_SPACE",
    "PATIENCE_S",
    "REPLICA_RATE",
    "SERVICE_S",
    "STEP_S",
    "TYPICAL_REPLICAS",
    "ControlLoop",
    "Outcome",
    "Pool",
    "Reading",
    "View",
]

STEP_S: Final = 0.5
SERVICE_S: Final = 0.1
"""Mean time that a replica needs for a request; exponentially distributed."""
REPLICA_RATE: Final = 1.0 / SERVICE_S
MIN_REPLICAS: Final = 2
MAX_REPLICAS: Final = 80
BOOT_STEPS: Final = 3
"""A replica serves from the third step after the one in which it was ordered."""
LATE_S: Final = 0.1
"""A request that waited longer was answered late."""
PATIENCE_S: Final = 2.0
"""A request that waited longer is dropped unanswered; it counts as late."""

CHANGES: Final = (-8, -4, -2, -1, 0, 1, 2, 4, 8)
OBSERVATION_SPACE: Final = Box((19,))
ACTION_SPACE: Final = Discrete(len(CHANGES))

TYPICAL_REPLICAS: Final = 17.0
"""The unit of cost and of observed rates."""
LATE_COST: Final = 20.0
BOOT_UNIT: Final = 8.0
QUEUE_LIMIT: Final = 4.0
FIRST_LOAD: Final = 0.7
"""An episode begins with replicas for the rate of the moment at this load."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pool did in one step.

    Attributes:
        arrived: Requests that came.
        taken: Requests that left the queue, to be served or dropped.
        late: Of those, the ones that had waited for more than `LATE_S`.
        waiting: Requests in the queue at the end.
        busy_s: Service time of what was taken, seconds over all replicas.
        died: Replicas that ended without having been told to; a twin's never do.
    """

    arrived: int
    taken: int
    late: int
    waiting: int
    busy_s: float
    died: int = 0


class Pool(Protocol):
    """Replicas that take requests from one queue, first come first served."""

    @property
    def running(self) -> int:
        """Replicas that take requests."""
        ...

    @property
    def booting(self) -> tuple[int, ...]:
        """`[BOOT_STEPS]`: replicas that will take requests in 1, 2, … steps."""
        ...

    def begin(self, replicas: int) -> None:
        """Forget all requests, and run as many replicas."""
        ...

    def scale(self, target: int) -> None:
        """Order replicas, or cancel the youngest and drain, until `target` run or boot."""
        ...

    def serve(self, rate: float) -> Reading:
        """One step with `rate` arrivals a second; then those that have booted run."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """What any controller may see before a step.

    Attributes:
        moment: The step, counted from the beginning of the demand: the clock and the calendar.
        running: Replicas that take requests.
        booting: `[BOOT_STEPS]`, see `Pool.booting`.
        waiting: Requests in the queue.
        load: Busy time over the running replicas' time in the last step; above 1 where requests
            that take longer than the step were begun.
        rates: `[HISTORY]` arrivals a second in the last steps, the newest last.
    """

    moment: int
    running: int
    booting: tuple[int, ...]
    waiting: int
    load: float
    rates: tuple[float, ...]

    @property
    def replicas(self) -> int:
        """Those that are paid for: running and booting."""
        return self.running + sum(self.booting)

    def observation(self) -> NDArray[np.float32]:
        """float32 [19]: replicas 1, boot slots 3, queue 1, load 1, clock 6, rates 6, demand 1."""
        unit = TYPICAL_REPLICAS * REPLICA_RATE
        rates = self.rates
        running = max(self.running, 1)  # none where all have died
        mean, recent = sum(rates) / len(rates), sum(rates[-3:]) / 3.0
        return np.array(
            (
                self.running / TYPICAL_REPLICAS,
                *(slot / BOOT_UNIT for slot in self.booting),
                min(self.waiting / running, QUEUE_LIMIT),
                self.load,
                *_CLOCK[self.moment % WEEK_STEPS],
                mean / unit,
                recent / unit,
                sum(rates[-6:]) / 6.0 / unit,
                (rates[-1] - mean) / unit,
                (rates[-2] - mean) / unit,
                (rates[-3] - mean) / unit,
                recent / (REPLICA_RATE * running),
            ),
            np.float32,
        )

    def mask(self) -> NDArray[np.bool_]:
        """Bool [9]: the changes after which the replicas are within their bounds."""
        return _MASKS[self.replicas]

    def target(self, action: int) -> int:
        """The replicas that an action asks for."""
        return self.replicas + CHANGES[action]


def _clock() -> tuple[tuple[float, ...], ...]:
    """Of each step of a week: sine and cosine of the day, twice the day, and the week."""
    table = []
    for step in range(WEEK_STEPS):
        day, week = math.tau * step / DAY_STEPS, math.tau * step / WEEK_STEPS
        angles = (day, 2.0 * day, week)
        table.append(tuple(f(angle) for angle in angles for f in (math.sin, math.cos)))
    return tuple(table)


def _masks() -> tuple[NDArray[np.bool_], ...]:
    changes = np.array(CHANGES)
    after = changes + np.arange(MAX_REPLICAS + 1)[:, None]  # [replicas, action]
    allowed = (after >= MIN_REPLICAS) & (after <= MAX_REPLICAS)
    # A pool whose replicas died may be below the minimum: then it may do anything but shrink.
    allowed |= (np.arange(MAX_REPLICAS + 1) < MIN_REPLICAS)[:, None] & (changes >= 0)
    return tuple(allowed)


_CLOCK: Final = _clock()
_MASKS: Final = _masks()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step of the control loop brought.

    Attributes:
        reading: What the pool did.
        replicas: Replicas that were paid for.
    """

    reading: Reading
    replicas: int

    @property
    def late(self) -> float:
        """The share of the taken requests that were late."""
        return self.reading.late / self.reading.taken if self.reading.taken else 0.0

    @property
    def reward(self) -> float:
        """What everybody is judged by: −(replicas / 17) − 20 × the step's share that was late.

        So every step weighs the same, however few requests it has.
        """
        return -self.replicas / TYPICAL_REPLICAS - LATE_COST * self.late


class ControlLoop:
    """A pool under a demand, step by step.

    Attributes:
        view: What a controller sees now.
    """

    def __init__(self, pool: Pool, demand: Demand) -> None:
        """Nothing runs before `begin`."""
        self._pool = pool
        self._demand = demand
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._end = 0
        self.view = View(0, MIN_REPLICAS, (0,) * BOOT_STEPS, 0, 0.0, (0.0,) * HISTORY)

    @property
    def over(self) -> bool:
        """Whether the last step of the span is done."""
        return self.view.moment >= self._end

    def begin(self, span: Span) -> None:
        """Begin an episode.

        Args:
            span: Its steps; it begins after `HISTORY` steps of the demand or more.
        """
        rates = self._demand.rates
        wanted = math.ceil(float(rates[span.start]) / REPLICA_RATE / FIRST_LOAD)
        self._pool.begin(min(max(wanted, MIN_REPLICAS), MAX_REPLICAS))
        self._rates.extend(rates[span.start - HISTORY : span.start].tolist())
        self._end = span.end
        self.view = self._look(span.start, waiting=0, load=FIRST_LOAD)

    def step(self, target: int) -> Outcome:
        """Scale to `target` replicas, within the bounds, and let half a second pass."""
        pool, moment = self._pool, self.view.moment
        pool.scale(min(max(target, MIN_REPLICAS), MAX_REPLICAS))
        running = pool.running
        replicas = running + sum(pool.booting)
        reading = pool.serve(float(self._demand.rates[moment]))
        self._rates.append(reading.arrived / STEP_S)
        load = reading.busy_s / (STEP_S * max(running, 1))
        self.view = self._look(moment + 1, waiting=reading.waiting, load=load)
        return Outcome(reading, replicas)

    def _look(self, moment: int, *, waiting: int, load: float) -> View:
        pool = self._pool
        return View(moment, pool.running, pool.booting, waiting, load, tuple(self._rates))


Controller = Callable[[View], int]
"""Decides: the replicas that it wants, of what it sees. Made anew for each episode."""
