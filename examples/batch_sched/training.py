"""Training on windows: play them in a random order, again and again, and learn from each.

A simulation can wait for its learner, so it does: an update's worth of decisions comes from one
version, and the next one acts in the windows after it. Now and then the newest version is scored on
the validation windows. The best of these is what is judged, because the last one is rarely it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from examples.batch_sched.application import Scheduler
from examples.batch_sched.evaluation import AGENT, Score, score
from examples.batch_sched.windows import Split, Window
from rl4sys_stream import StreamAgent
from rl4sys_stream.errors import StreamError

__all__ = ["CurvePoint", "Plan", "Training", "train"]

MODEL_WAIT_S: Final = 300.0
PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is trained.

    Attributes:
        decisions: That the agent is asked for and learns from, at least; the last window is played
            to its end.
        points: Scores on the validation windows, that of the first version apart.
    """

    decisions: int = 300_000
    points: int = 12


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One version on the validation windows.

    Attributes:
        decisions: Made before.
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
        curve: Scores on validation windows, in order.
        decisions: In all.
        windows: Played in all.
    """

    curve: tuple[CurvePoint, ...]
    decisions: int
    windows: int

    @property
    def best(self) -> CurvePoint:
        """The version that did best on the validation windows."""
        return min(self.curve, key=lambda point: point.score.geometric_mean)


def train(
    agent: StreamAgent,
    scheduler: Scheduler,
    windows: Split,
    plan: Plan,
    seed: int,
    *,
    on_point: Callable[[CurvePoint], None] = lambda _: None,
    on_window: Callable[[int], None] = lambda _: None,
) -> Training:
    """Let an agent schedule training windows until the plan is done.

    Args:
        agent: Of a client with a worker.
        scheduler: The application, which asks that agent.
        windows: To learn from, and to validate by.
        plan: How much.
        seed: Of the order of the windows.
        on_point: Told of each score.
        on_window: Told how many decisions were made, after each window.

    Raises:
        StreamError: If no model comes, or the worker is silent.
    """
    if not agent.wait_for_model(MODEL_WAIT_S):
        raise StreamError(
            f"no model of {agent.client_id} in {MODEL_WAIT_S:g} s; is a worker or dispatcher "
            f"running? The broker: {agent.status().last_error or agent.status().broker}"
        )
    curve: list[CurvePoint] = []

    def validate(decisions: int) -> None:
        reached = score(AGENT, scheduler.judge, windows.validation)
        curve.append(CurvePoint(decisions, agent.version, reached))
        on_point(curve[-1])

    validate(0)
    played = decisions = 0
    order = _shuffled(windows.training, random.Random(seed))  # noqa: S311 - nothing secret
    while decisions < plan.decisions:
        scheduler.learn(next(order))
        played += 1
        if not agent.wait_for_learner(PATIENCE_S):
            raise StreamError(
                f"the worker of {agent.client_id} has settled nothing for {PATIENCE_S:g} s; see "
                "`rl4sys-stream status` and its log"
            )
        decisions = agent.settlement().accepted_steps
        on_window(decisions)
        if decisions * plan.points >= len(curve) * plan.decisions:
            validate(decisions)
    return Training(tuple(curve), decisions, played)


def _shuffled(windows: Sequence[Window], rng: random.Random) -> Iterator[Window]:
    """All of them in a random order, then in another one, without end."""
    while True:
        yield from rng.sample(windows, len(windows))
