"""How good choices are: held against the default planner, each hint alone, and hindsight.

Every query is run under every hint first, in turn, so that all that is compared was measured side
by side. A policy is then judged by the costs of the hints that it chooses; no cost of a query that
it is judged by has ever been a reward.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.pg_steer.application import FLOOR
from examples.pg_steer.database import Database, QueryError
from examples.pg_steer.features import FEATURES, observe
from examples.pg_steer.hints import DEFAULT, HINTS
from examples.pg_steer.templates import Query
from rl4sys_stream import StreamAgent

__all__ = [
    "Score",
    "Table",
    "baselines",
    "best_static",
    "by_template",
    "choose",
    "measure",
    "score",
    "with_asking",
]

ORACLE: Final = "oracle"


@dataclass(frozen=True, slots=True)
class Table:
    """Queries under all hints.

    Attributes:
        queries: N of them.
        observations: float32 `[N, 66]`, what an agent sees of each.
        costs: float64 `[N, 8]`, in the database's unit.
        explain_ms: float64 `[N]`, what asking the planner took.
    """

    queries: tuple[Query, ...]
    observations: NDArray[np.float32]
    costs: NDArray[np.float64]
    explain_ms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """What one way to choose hints costs over a table's queries.

    Attributes:
        name: Of the way.
        total: Sum over the queries, in the database's unit.
        of_default: That as a share of the default planner's.
        geomean_of_default: Geometric mean of each query's share.
        slowest_of_default: The largest such share: of the query that it treats worst.
    """

    name: str
    total: float
    of_default: float
    geomean_of_default: float
    slowest_of_default: float


def measure(
    database: Database,
    queries: Iterable[Query],
    *,
    repeats: int = 1,
    seed: int = 0,
    on_query: Callable[[int], None] = lambda _count: None,
) -> Table:
    """Run every query under every hint.

    Args:
        database: Where.
        queries: What; one that PostgreSQL refuses is left out.
        repeats: Runs of each pair; the cheapest counts, which an interruption did not meet.
        seed: Of the order of the hints, which is another one for each query and run.
        on_query: Called with the number of queries that are through.

    Raises:
        DatabaseError: If PostgreSQL is gone.
    """
    rng = np.random.default_rng(seed)
    kept: list[Query] = []
    observations: list[NDArray[np.float32]] = []
    costs: list[NDArray[np.float64]] = []
    explain_ms: list[float] = []
    for query in queries:
        try:
            explained = database.explain(query.sql)
        except QueryError:
            continue
        row = np.full(len(HINTS), np.inf)
        for _ in range(repeats):
            for hint in rng.permutation(len(HINTS)):
                row[hint] = min(row[hint], database.run(query.sql, HINTS[hint]).cost)
        kept.append(query)
        observations.append(observe(explained, database.relations))
        costs.append(row)
        explain_ms.append(explained.took_ms)
        on_query(len(kept))
    return Table(
        tuple(kept),
        np.array(observations, np.float32).reshape(-1, FEATURES),
        np.array(costs).reshape(-1, len(HINTS)),
        np.array(explain_ms),
    )


def choose(agent: StreamAgent, table: Table) -> NDArray[np.int64]:
    """The hint that the newest policy prefers for each query, `[N]`; nothing is recorded."""
    return np.array([int(agent.evaluate(row)) for row in table.observations], np.int64)


def score(name: str, table: Table, choices: Sequence[int] | NDArray[np.int64]) -> Score:
    """What the hints `choices`, one for each query, cost."""
    return _score(name, _chosen(table, choices), table.costs[:, DEFAULT])


def with_asking(
    name: str, table: Table, choices: Sequence[int] | NDArray[np.int64], agent_ms: float
) -> Score:
    """The same with what steering itself costs: asking the planner, and `agent_ms` a query.

    Only for costs in milliseconds.
    """
    chosen = _chosen(table, choices) + table.explain_ms + agent_ms
    return _score(name, chosen, table.costs[:, DEFAULT])


def by_template(table: Table, choices: NDArray[np.int64]) -> tuple[Score, ...]:
    """The choices on the queries of each template alone, in the order of the templates' names."""
    names = np.array([query.template for query in table.queries])
    chosen, default = _chosen(table, choices), table.costs[:, DEFAULT]
    return tuple(
        _score(name, chosen[names == name], default[names == name])
        for name in sorted(set(names.tolist()))
    )


def _chosen(table: Table, choices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    return table.costs[np.arange(len(table.queries)), choices]


def _score(name: str, chosen: NDArray[np.float64], default: NDArray[np.float64]) -> Score:
    shares = (chosen + FLOOR) / (default + FLOOR)
    return Score(
        name,
        total=float(chosen.sum()),
        of_default=float(chosen.sum() / default.sum()),
        geomean_of_default=float(np.exp(np.log(shares).mean())),
        slowest_of_default=float(shares.max()),
    )


def best_static(training: Table) -> int:
    """Number of the hint with the least total on training queries."""
    return int(training.costs.sum(axis=0).argmin())


def baselines(table: Table) -> list[Score]:
    """Each hint for all queries, and the best one of each query in hindsight, the oracle."""
    alone = [
        score(hint.name, table, np.full(len(table.queries), number))
        for number, hint in enumerate(HINTS)
    ]
    return [*alone, score(ORACLE, table, table.costs.argmin(axis=1))]
