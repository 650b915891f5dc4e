"""Training on twins: many days at once, each an open trajectory of one agent.

A simulation can wait for its learner, so it does: a rollout is one day of each twin, and the next
days begin with the policy that came of it. Now and then the newest version is scored on validation
weeks; the best of these is what is served, because the last one is rarely it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from examples.autoscale.application import Episode, greedy
from examples.autoscale.control import ControlLoop
from examples.autoscale.demand import DAY_STEPS, HISTORY, WEEK_STEPS, Demand, Span
from examples.autoscale.evaluation import VALIDATION_SEED, Score, compare
from examples.autoscale.twin import Twin
from rl4sys_stream import StreamAgent
from rl4sys_stream.errors import StreamError

__all__ = ["CurvePoint", "Plan", "Training", "train"]

LATE_PROMISE: Final = 0.003
"""Share of the requests that may be late on validation weeks: half a percent, less a margin."""
MODEL_WAIT_S: Final = 300.0
PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is trained.

    Attributes:
        decisions: Steps over all twins.
        twins: Days at once.
        days_between: Days of each twin between two scores on validation weeks.
        windows: Spans of the validation demand that a score is made of, at most.
        window_steps: Steps of each.
        day_steps: Steps of a training day; fewer for a short try.
    """

    decisions: int = 599_040
    twins: int = 16
    days_between: int = 10
    windows: int = 6
    window_steps: int = WEEK_STEPS
    day_steps: int = DAY_STEPS

    def validation(self, demand: Demand) -> list[Span]:
        """What versions are scored on."""
        return demand.validation.windows(self.window_steps)[: self.windows]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One version on the validation weeks.

    Attributes:
        decisions: Steps trained on before it.
        version: Of the model.
        score: What it reached.
    """

    decisions: int
    version: int
    score: Score


@dataclass(frozen=True, slots=True)
class Training:
    """What a training brought.

    Attributes:
        curve: Scores on validation weeks, in order.
        decisions: Steps in all.
    """

    curve: tuple[CurvePoint, ...]
    decisions: int

    @property
    def best(self) -> CurvePoint:
        """The version to serve: the cheapest that keeps the promise, else the most punctual."""
        kept = [point for point in self.curve if point.score.late <= LATE_PROMISE]
        if not kept:
            return min(self.curve, key=lambda point: point.score.late)
        return max(kept, key=lambda point: point.score.objective)


def train(
    agent: StreamAgent,
    demand: Demand,
    plan: Plan,
    seed: int,
    on_point: Callable[[CurvePoint], None] = lambda _: None,
    on_day: Callable[[str], None] = lambda _: None,
) -> Training:
    """Let an agent control twins until the plan is done.

    Args:
        agent: Of a client with a worker.
        demand: Of which the training span is played, and the validation span scored.
        plan: How much.
        seed: Of the twins, and of the days that they play.
        on_point: Told of each score.
        on_day: Told in words how far it is, after each rollout.

    Raises:
        StreamError: If no model comes, or the worker is silent.
    """
    if not agent.wait_for_model(MODEL_WAIT_S):
        raise StreamError(
            f"no model of {agent.client_id} in {MODEL_WAIT_S:g} s; is a worker or dispatcher "
            f"running? The broker: {agent.status().last_error or agent.status().broker}"
        )
    rng = np.random.default_rng(seed)
    twins = [Twin(seed * 10_000 + place) for place in range(plan.twins)]
    days = -(-plan.decisions // (plan.twins * plan.day_steps))
    curve: list[CurvePoint] = []
    for day in range(1, days + 1):
        _play_day(agent, demand, twins, rng, plan)
        # So that no newer version is on its way, and the next days begin with this one.
        if not agent.wait_for_learner(PATIENCE_S):
            raise StreamError(
                f"the worker of {agent.client_id} has settled nothing for {PATIENCE_S:g} s; see "
                "`rl4sys-stream status` and its log"
            )
        on_day(f"day {day} of {days}, version {agent.version}")
        if day % plan.days_between == 0 or day == days:
            decisions = day * plan.twins * plan.day_steps
            curve.append(CurvePoint(decisions, agent.version, _validate(agent, demand, plan)))
            on_point(curve[-1])
    return Training(tuple(curve), days * plan.twins * plan.day_steps)


def _play_day(
    agent: StreamAgent, demand: Demand, twins: list[Twin], rng: np.random.Generator, plan: Plan
) -> None:
    """A day of each twin, beginning at any time of any day, and not quite as it was."""
    first, last = demand.training.start + HISTORY, demand.training.end - plan.day_steps
    episodes = []
    for twin in twins:
        begin = int(rng.integers(first, last))
        span = Span(begin, begin + plan.day_steps)
        loop = ControlLoop(twin, demand.varied(span, rng))
        episodes.append(Episode(agent, loop, span))
    for _ in range(plan.day_steps):
        for episode in episodes:
            episode.step()


def _validate(agent: StreamAgent, demand: Demand, plan: Plan) -> Score:
    spans = plan.validation(demand)
    (reached,) = compare({"agent": lambda: greedy(agent)}, demand, spans, VALIDATION_SEED)
    return reached
