"""What one does today: controllers without learning, with their settings tuned on known demand.

All see the same `View` as the agent. Each keeps what it remembers within one episode.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.autoscale.control import BOOT_STEPS, REPLICA_RATE, Controller, View
from examples.autoscale.demand import WEEK_STEPS

__all__ = ["HPA", "KEDA", "WeeklyPredictive", "WithFloor"]

RATE_STEPS = 4
"""Steps over which the arrival rate is averaged."""
TOLERANCE = 0.1
LEAD = BOOT_STEPS + 1
"""Steps ahead for which the predictive controller orders."""


def _rate(view: View, steps: int = RATE_STEPS) -> float:
    """Arrivals a second, over the last steps."""
    return sum(view.rates[-steps:]) / steps


class _Stabiliser:
    """The largest of the last recommendations: scale up at once, down when all of them agree."""

    def __init__(self, steps: int) -> None:
        self._recent: deque[int] = deque(maxlen=steps + 1)

    def __call__(self, wanted: int) -> int:
        self._recent.append(wanted)
        return max(self._recent)


class HPA:
    """Kubernetes' horizontal pod autoscaler on utilisation.

    Replicas are multiplied by utilisation over target and rounded up; within a tolerance of 10 %
    nothing changes; scaling down waits until the window's recommendations agree (Kubernetes
    documentation, Horizontal Pod Autoscaling, "Algorithm details"). Utilisation is offered load
    over capacity, which is kinder than measured: it does not stop at 1.
    """

    def __init__(self, target: float, window: int, rate_steps: int = RATE_STEPS) -> None:
        """Nothing is remembered yet.

        Args:
            target: Utilisation.
            window: Steps of stabilisation.
            rate_steps: Steps over which the arrival rate is averaged.
        """
        self._target = target
        self._rate_steps = rate_steps
        self._stabilise = _Stabiliser(window)

    def __call__(self, view: View) -> int:
        """The replicas that it wants."""
        running = max(view.running, 1)  # none where all have died
        ratio = _rate(view, self._rate_steps) / (running * REPLICA_RATE) / self._target
        steady = abs(ratio - 1.0) <= TOLERANCE
        return self._stabilise(running if steady else math.ceil(running * ratio))


class KEDA:
    """KEDA's way: as many replicas as the queue is long over a target, but at least for the load.

    Two triggers, of which the larger counts: requests in the queue for each replica, and
    utilisation as the HPA has it (KEDA documentation, "Scaling Deployments": several triggers).
    """

    def __init__(self, queue: float, target: float, window: int) -> None:
        """Args: queue: Waiting requests a replica. target: Utilisation. window: As the HPA's."""
        self._queue = queue
        self._target = target
        self._stabilise = _Stabiliser(window)

    def __call__(self, view: View) -> int:
        """The replicas that it wants."""
        for_load = _rate(view) / REPLICA_RATE / self._target
        return self._stabilise(math.ceil(max(for_load, view.waiting / self._queue)))


@dataclass(frozen=True, slots=True, eq=False)
class WeeklyPredictive:
    """The same hour of last week, scaled by how today compares with it.

    Attributes:
        rates: The demand, of which only what lies a week back is looked at.
        target: Utilisation.
    """

    rates: NDArray[np.float64]
    target: float

    def __call__(self, view: View) -> int:
        """The replicas that it wants."""
        now = expected = _rate(view)
        then = view.moment - WEEK_STEPS
        if then >= RATE_STEPS:
            before = float(self.rates[then - RATE_STEPS : then].mean())
            trend = min(1.2, max(0.8, now / max(before, 1.0)))
            ahead = float(self.rates[then + LEAD - 1 : then + LEAD + 1].max())
            expected = max(now, ahead * trend)
        return math.ceil(expected / REPLICA_RATE / self.target)


@dataclass(frozen=True, slots=True, eq=False)
class WithFloor:
    """A controller that never goes below so many replicas, as `minReplicas` makes the HPA do.

    A few replicas more at night are ready when the morning begins, and spare the night's requests a
    wait.

    Attributes:
        controller: Decides above the floor.
        floor: Replicas.
    """

    controller: Controller
    floor: int

    def __call__(self, view: View) -> int:
        """The replicas that it wants."""
        return max(self.floor, self.controller(view))
