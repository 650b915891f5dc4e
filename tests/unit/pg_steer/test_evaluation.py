"""Scores by hand."""

import math

import numpy as np
import pytest

from examples.pg_steer.application import reward
from examples.pg_steer.database import Cost
from examples.pg_steer.evaluation import Score, Table, baselines, best_static, score
from examples.pg_steer.hints import HINTS
from examples.pg_steer.report import Results, draw_comparison, draw_curves, markdown
from examples.pg_steer.templates import Query
from examples.pg_steer.training import CurvePoint, Overhead, Training

COSTS = np.array([[10.0, 1, 9, 9, 9, 9, 8, 9], [2.0, 40, 9, 9, 9, 9, 3, 9]])
TABLE = Table(
    (Query("a", "SELECT 1"), Query("b", "SELECT 2")), np.zeros((2, 66), np.float32), COSTS
)


def test_a_score_compares_with_the_default_planner():
    """In total, for each query alike, and for the query that is treated worst."""
    found = score("mine", TABLE, [1, 6])
    assert found.total == 4.0
    assert math.isclose(found.of_default, 4 / 12)
    shares = [1.05 / 10.05, 3.05 / 2.05]
    assert math.isclose(found.geomean_of_default, math.sqrt(shares[0] * shares[1]))
    assert math.isclose(found.slowest_of_default, shares[1])


def test_the_oracle_takes_the_best_hint_of_each_query():
    """And no static hint is better."""
    scores = {found.name: found for found in baselines(TABLE)}
    assert scores["oracle"].total == 3.0
    assert scores["default"].of_default == 1.0
    assert len(scores) == len(HINTS) + 1


def test_the_best_static_hint_has_the_least_total():
    """Over all queries, not of one."""
    assert HINTS[best_static(TABLE)].name == "no_indexscan"


def test_ten_times_slower_costs_one():
    """Whether it is 10 ms or 1 s; there is no floor to how bad it gets."""
    assert math.isclose(reward(99.95) - reward(999.95), 1.0)
    assert reward(3000.0) < reward(2999.0)


@pytest.fixture
def results() -> Results:
    """A run that learned."""
    agent = Score("agent", 4.0, 1 / 3, 0.4, 1.5)
    overhead = Overhead(0.1, 0.2)
    curve = (CurvePoint(0, 1, Score("agent", 12.0, 1.0, 1.0, 1.0)), CurvePoint(100, 5, agent))
    return Results(
        algorithm="PPO",
        seed=1,
        cost=Cost.TIME,
        server="15.18",
        held_out=2,
        best_static="no_indexscan",
        scores=(*baselines(TABLE), agent),
        training=Training(curve, 100, 1, 0, overhead, overhead, 9.0),
    )


def test_the_table_names_the_best_static_hint_and_the_agent(results):
    """Sorted, the slowest first."""
    text = markdown(results)
    assert "no_indexscan (best alone on training queries)" in text
    assert "| agent | 4 | 0.33 | 0.40 | × 1.5 |" in text
    assert text.index("no_nestloop") < text.index("agent") < text.index("oracle")


def test_the_plots_are_drawn(results, tmp_path):
    """Two PNGs."""
    draw_curves(tmp_path / "curve.png", [results, results])
    draw_comparison(tmp_path / "comparison.png", results, TABLE, np.array([1, 6]))
    for name in ("curve.png", "comparison.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
