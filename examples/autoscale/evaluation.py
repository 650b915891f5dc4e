"""How good a controller is, on twins: what it costs, and how often it is late."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from examples.autoscale.baselines import HPA, KEDA, WeeklyPredictive, WithFloor
from examples.autoscale.control import (
    LATE_COST,
    TYPICAL_REPLICAS,
    Controller,
    ControlLoop,
    Outcome,
)
from examples.autoscale.demand import Demand, Span
from examples.autoscale.twin import Twin

__all__ = [
    "HELD_OUT_SEED",
    "VALIDATION_SEED",
    "Score",
    "baselines",
    "compare",
    "floored",
    "play",
    "score",
]

VALIDATION_SEED: Final = 8_000_000
HELD_OUT_SEED: Final = 9_000_000
"""Far from the seeds of training, so that the requests are new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a controller reached.

    Attributes:
        name: Of the controller.
        objective: Mean reward of a step.
        replicas: Mean of what was paid for.
        late: Share of all requests that were answered late or not at all.
        steps: How many were played.
    """

    name: str
    objective: float
    replicas: float
    late: float
    steps: int

    @property
    def late_steps(self) -> float:
        """The share that was late in a step, on average over the steps: what the objective counts.

        A step at night weighs as much as one at noon here, and has a fiftieth of its requests.
        """
        return (-self.objective - self.replicas / TYPICAL_REPLICAS) / LATE_COST


def score(name: str, outcomes: Sequence[Outcome]) -> Score:
    """Sum up what happened."""
    steps = len(outcomes)
    taken = sum(outcome.reading.taken for outcome in outcomes)
    return Score(
        name=name,
        objective=sum(outcome.reward for outcome in outcomes) / steps,
        replicas=sum(outcome.replicas for outcome in outcomes) / steps,
        late=sum(outcome.reading.late for outcome in outcomes) / max(taken, 1),
        steps=steps,
    )


def play(loop: ControlLoop, span: Span, controller: Controller) -> list[Outcome]:
    """One episode."""
    loop.begin(span)
    outcomes = []
    while not loop.over:
        outcomes.append(loop.step(controller(loop.view)))
    return outcomes


def compare(
    makers: Mapping[str, Callable[[], Controller]],
    demand: Demand,
    spans: Iterable[Span],
    seed: int,
) -> list[Score]:
    """Let all play the same spans with the same requests.

    Args:
        makers: Name -> a fresh controller for each span.
        demand: The load.
        spans: What is played.
        seed: Of the requests; each span has its own.
    """
    numbered = list(enumerate(spans))
    return [
        score(
            name,
            [
                outcome
                for number, span in numbered
                for outcome in play(ControlLoop(Twin(seed + number), demand), span, make())
            ],
        )
        for name, make in makers.items()
    ]


def baselines(demand: Demand) -> dict[str, Callable[[], Controller]]:
    """The baselines with the settings that `tuning` found."""
    return {
        "HPA": lambda: HPA(target=0.55, window=6),
        "KEDA": lambda: KEDA(queue=0.25, target=0.6, window=6),
        "weekly predictive": lambda: WeeklyPredictive(demand.rates, target=0.7),
    }


def floored(demand: Demand) -> dict[str, Callable[[], Controller]]:
    """The same two with a floor under them, whose height was tuned as well."""
    return {
        "HPA, floor": lambda: WithFloor(HPA(target=0.65, window=6, rate_steps=1), 10),
        "weekly predictive, floor": lambda: WithFloor(
            WeeklyPredictive(demand.rates, target=0.75), 6
        ),
    }
