"""Live training: queries are answered, one after another, and each answer is a lesson."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from examples.pg_steer.application import Answer, Steering
from examples.pg_steer.database import Cost, Database, QueryError
from examples.pg_steer.evaluation import Score, Table, choose, score
from examples.pg_steer.templates import Query
from rl4sys_stream import StreamAgent
from rl4sys_stream.errors import StreamError

__all__ = ["CurvePoint", "Overhead", "Training", "train"]

CURVE_POINTS: Final = 40
RECENT: Final = 200
MODEL_WAIT_S: Final = 60.0
FLUSH_TIMEOUT_S: Final = 30.0
PATIENCE_S: Final = 60.0
"""So long a worker may take from one settlement to the next."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How good the policy was after so many queries.

    Attributes:
        queries: Answered before.
        version: Of the model.
        held_out: Its score on held-out queries.
    """

    queries: int
    version: int
    held_out: Score


@dataclass(frozen=True, slots=True)
class Overhead:
    """Milliseconds that steering added to a query.

    Attributes:
        mean_ms: On average.
        p50_ms: Half of the queries had less.
        p99_ms: One in a hundred had more.
    """

    mean_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Training:
    """What became of a training.

    Attributes:
        curve: Its progress.
        queries: Answered.
        failed: Of these, failed or out of time.
        refused: Beside these, refused by PostgreSQL.
        agent: Overhead of observing, deciding and recording.
        explain: Overhead of asking the planner.
        wall_s: How long it took.
    """

    curve: tuple[CurvePoint, ...]
    queries: int
    failed: int
    refused: int
    agent: Overhead
    explain: Overhead
    wall_s: float


def train(
    agent: StreamAgent,
    database: Database,
    queries: Iterator[Query],
    count: int,
    held_out: Table,
    *,
    on_query: Callable[[str], None] = lambda _text: None,
) -> Training:
    """Answer `count` queries, and wait until the worker has learned from them.

    Args:
        agent: Of the application.
        database: Of the application.
        queries: What is asked.
        count: How many; at least one.
        held_out: What the policy is judged by meanwhile; none of it is trained on.
        on_query: Called now and then with how it goes.

    Raises:
        DatabaseError: If PostgreSQL is gone.
        StreamError: If the worker is silent at the end.
    """
    busy = database.cost is Cost.CPU
    steering = Steering(database, agent, time.thread_time if busy else time.perf_counter)
    agent.wait_for_model(MODEL_WAIT_S)
    answers: list[Answer] = []
    curve = [_point(agent, 0, held_out)]
    began_s, refused = time.monotonic(), 0
    for number, query in enumerate(islice(queries, count), 1):
        try:
            answers.append(steering.answer(query.sql))
        except QueryError:
            refused += 1
        if number % max(count // CURVE_POINTS, 1) == 0 and number < count:
            curve.append(_point(agent, number, held_out))
        on_query(_progress(number, count, answers, curve[-1]))
    wall_s = time.monotonic() - began_s
    _wait_for_the_worker(agent)
    curve.append(_point(agent, count, held_out))
    return _summary(answers, curve, refused=refused, wall_s=wall_s)


def _summary(
    answers: list[Answer], curve: list[CurvePoint], *, refused: int, wall_s: float
) -> Training:
    return Training(
        tuple(curve),
        queries=len(answers),
        failed=sum(bool(answer.outcome.error) for answer in answers),
        refused=refused,
        agent=_overhead([answer.agent_ms for answer in answers]),
        explain=_overhead([answer.explain_ms for answer in answers]),
        wall_s=wall_s,
    )


def _point(agent: StreamAgent, queries: int, held_out: Table) -> CurvePoint:
    return CurvePoint(queries, agent.version, score("agent", held_out, choose(agent, held_out)))


def _progress(number: int, count: int, answers: list[Answer], point: CurvePoint) -> str:
    recent = [answer.outcome.cost for answer in answers[-RECENT:]]
    mean = sum(recent) / max(len(recent), 1)
    return (
        f"query {number:,} of {count:,}, model {point.version}: {mean:.1f} a query while it "
        f"explores; held-out queries at {point.held_out.of_default:.0%} of the default planner"
    )


def _wait_for_the_worker(agent: StreamAgent) -> None:
    if not (agent.flush(FLUSH_TIMEOUT_S) and agent.wait_for_learner(PATIENCE_S)):
        raise StreamError(
            f"the worker of {agent.client_id} has settled nothing for {PATIENCE_S:g} s; see "
            "`rl4sys-stream status` and its log"
        )


def _overhead(values: list[float]) -> Overhead:
    if not values:
        return Overhead(0.0, 0.0, 0.0)
    p50, p99 = np.percentile(values, [50, 99])
    return Overhead(float(np.mean(values)), float(p50), float(p99))
