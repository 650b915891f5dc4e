"""What the agent sees of a query: 66 numbers from the planner's own estimates.

In: the plan that PostgreSQL would take, and what it expects each hint set to cost. Out: a float32
vector. Nothing of it knows the schema or the text of the query, so it serves any database.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from examples.pg_steer.hints import HINTS

__all__ = ["FEATURES", "NODE_TYPES", "RELATIONS", "Explained", "PlanNode", "observe"]

NODE_TYPES: Final = (
    *("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan"),
    *("Nested Loop", "Hash Join", "Merge Join", "Hash", "Sort", "Incremental Sort"),
    *("Aggregate", "Limit", "Materialize", "Memoize"),
)
RELATIONS: Final = 5
"""Tables that have features of their own: the largest ones."""
FEATURES: Final = 3 * len(NODE_TYPES) + 2 * RELATIONS + 3 + len(HINTS)

_DISABLE_PENALTY: Final = 1e10
"""PostgreSQL before 18 adds this to the cost of a node that it uses though it is off."""


class PlanNode(msgspec.Struct, frozen=True, rename=lambda name: name.replace("_", " ").title()):
    """A node of EXPLAIN (FORMAT JSON), as far as it is read here.

    Attributes:
        node_type: "Seq Scan", "Hash Join", …
        relation_name: The table, where it reads one.
        startup_cost: Before the first row, in the planner's unit.
        total_cost: Until the last row.
        plan_rows: Rows expected.
        shared_hit_blocks: With BUFFERS: 8 KiB blocks found in the cache, children included.
        shared_read_blocks: Likewise those that were not.
        temp_read_blocks: Likewise of temporary files.
        temp_written_blocks: Likewise.
        plans: Children.
    """

    node_type: str
    startup_cost: float
    total_cost: float
    plan_rows: float
    relation_name: str | None = None
    shared_hit_blocks: int = 0
    shared_read_blocks: int = 0
    temp_read_blocks: int = 0
    temp_written_blocks: int = 0
    plans: tuple["PlanNode", ...] = ()

    def walk(self) -> Iterator["PlanNode"]:
        """This node and all below it."""
        yield self
        for child in self.plans:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Explained:
    """What the planner says of one query.

    Attributes:
        plan: The plan without hints.
        costs: Total cost under each of `HINTS`, in the planner's unit.
        took_ms: What asking took.
    """

    plan: PlanNode
    costs: tuple[float, ...]
    took_ms: float = 0.0


def observe(explained: Explained, relations: Sequence[str]) -> NDArray[np.float32]:
    """The observation.

    Args:
        explained: Of the query.
        relations: Names of at most `RELATIONS` tables that get features of their own.

    Returns:
        float32 `[66]`: of each of 15 node types [how many, sum of log(1 + rows), largest
        log(1 + cost)]; of each of 5 relations [how many scans, largest log(1 + rows)]; of the whole
        plan log(1 + startup cost) and log(1 + total cost); log(1 + total cost) under each of 8 hint
        sets; and log(1 + rows) of the whole plan.
    """
    nodes = np.zeros((len(NODE_TYPES), 3), np.float32)
    scans = np.zeros((RELATIONS, 2), np.float32)
    places = {name: place for place, name in enumerate(relations[:RELATIONS])}
    for node in explained.plan.walk():
        rows = np.log1p(node.plan_rows)
        kind = _PLACES.get(node.node_type)
        if kind is not None:
            cost = np.log1p(_without_penalty(node.total_cost))
            nodes[kind] = nodes[kind, 0] + 1, nodes[kind, 1] + rows, max(nodes[kind, 2], cost)
        relation = None if node.relation_name is None else places.get(node.relation_name)
        if relation is not None:
            scans[relation] = scans[relation, 0] + 1, max(scans[relation, 1], rows)
    plan = explained.plan
    whole = (plan.startup_cost, plan.total_cost, *explained.costs)
    totals = np.log1p([*map(_without_penalty, whole), plan.plan_rows])
    return np.concatenate([nodes.ravel(), scans.ravel(), totals.astype(np.float32)])


_PLACES: Final = {name: place for place, name in enumerate(NODE_TYPES)}


def _without_penalty(cost: float) -> float:
    return cost % _DISABLE_PENALTY
