"""What the agent sees of a plan."""

import math

import numpy as np

from examples.pg_steer.features import FEATURES, NODE_TYPES, Explained, PlanNode, observe
from examples.pg_steer.hints import HINTS

TABLES = ("flights", "planes")


def node(kind: str, rows: float, cost: float, *children: PlanNode, table: str | None = None):
    """A node of a plan."""
    return PlanNode(
        node_type=kind,
        startup_cost=0.0,
        total_cost=cost,
        plan_rows=rows,
        relation_name=table,
        plans=children,
    )


PLAN = node(
    "Hash Join",
    50,
    900,
    node("Seq Scan", 1000, 400, table="flights"),
    node("Hash", 20, 90, node("Seq Scan", 20, 80, table="planes")),
)
COSTS = tuple(float(100 * number) for number in range(len(HINTS)))


def observed(plan: PlanNode = PLAN, costs: tuple[float, ...] = COSTS):
    """The observation, by the names of the tables above."""
    return observe(Explained(plan, costs), TABLES)


def test_an_observation_has_66_finite_float32_numbers():
    """As many as the definition's space."""
    observation = observed()
    assert observation.shape == (FEATURES,) == (66,)
    assert observation.dtype == np.float32
    assert np.isfinite(observation).all()


def test_each_node_type_says_how_many_how_many_rows_and_how_expensive():
    """Counts and rows add up, costs compete."""
    at = 3 * NODE_TYPES.index("Seq Scan")
    count, rows, cost = observed()[at : at + 3]
    assert count == 2
    assert math.isclose(rows, math.log1p(1000) + math.log1p(20), rel_tol=1e-6)
    assert math.isclose(cost, math.log1p(400), rel_tol=1e-6)


def test_each_table_says_how_often_it_is_scanned_and_how_much_of_it():
    """By its place in the list of tables; there may be fewer than five."""
    tables = observed()[45:55].reshape(5, 2)
    assert np.allclose(tables[:2], [[1, math.log1p(1000)], [1, math.log1p(20)]])
    assert not tables[2:].any()


def test_what_each_hint_is_expected_to_cost_is_seen():
    """After the plan's own two costs."""
    assert np.allclose(observed()[57:65], np.log1p(COSTS))
    assert np.isclose(observed()[65], math.log1p(50))


def test_the_penalty_for_a_method_that_is_off_is_not_part_of_the_cost():
    """PostgreSQL 15 adds 1e10 for each; what is left is the estimate."""
    costs = (*COSTS[:-1], 2e10 + 123.0)
    assert np.isclose(observed(costs=costs)[64], math.log1p(123.0))


def test_nodes_and_tables_that_nobody_knows_are_passed_over():
    """Another version of PostgreSQL has others."""
    plan = node("Quantum Scan", 1, 1, table="elsewhere")
    assert not observed(plan)[:55].any()
