"""Scores by hand."""

import json
import math

import numpy as np
import pytest

from examples.pg_steer.application import reward
from examples.pg_steer.database import Cost
from examples.pg_steer.evaluation import (
    Score,
    Table,
    baselines,
    best_static,
    by_template,
    score,
    with_asking,
)
from examples.pg_steer.hints import HINTS
from examples.pg_steer.report import (
    Results,
    draw_comparison,
    draw_curves,
    markdown,
    write_json,
)
from examples.pg_steer.templates import Query
from examples.pg_steer.training import CurvePoint, Overhead, Training

COSTS = np.array([[10.0, 1, 9, 9, 9, 9, 8, 9], [2.0, 40, 9, 9, 9, 9, 3, 9]])
TABLE = Table(
    (Query("a", "SELECT 1"), Query("b", "SELECT 2")),
    np.zeros((2, 66), np.float32),
    COSTS,
    explain_ms=np.array([2.0, 3.0]),
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


def test_what_asking_costs_is_part_of_every_query():
    """The planner's estimates, which each query waits for, and the agent: 2 + 0.5 and 3 + 0.5."""
    found = with_asking("mine", TABLE, [1, 6], agent_ms=0.5)
    assert found.total == 4.0 + 5.0 + 1.0
    assert math.isclose(found.of_default, 10 / 12)
    assert math.isclose(found.slowest_of_default, 6.55 / 2.05)


def test_each_template_has_a_score_of_its_own():
    """A total may hide that all of it comes from one kind of query."""
    found = by_template(TABLE, np.array([1, 6]))
    assert [(one.name, one.total, one.of_default) for one in found] == [
        ("a", 1.0, 0.1),
        ("b", 3.0, 1.5),
    ]


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
    overhead = Overhead(0.1, 0.1, 0.2)
    curve = (CurvePoint(0, 1, Score("agent", 12.0, 1.0, 1.0, 1.0)), CurvePoint(100, 5, agent))
    return Results(
        algorithm="PPO",
        seed=1,
        cost=Cost.TIME,
        server="15.18",
        held_out=2,
        best_static="no_indexscan",
        scores=(*baselines(TABLE), agent),
        asking=Score("agent, asking included", 5.5, 0.5, 2.0, 3.0),
        templates=by_template(TABLE, np.array([1, 6])),
        split="verdict",
        unseen=("b",),
        training=Training(curve, 100, 1, 0, overhead, overhead, 9.0),
    )


def test_the_table_names_the_best_static_hint_and_the_agent(results):
    """Sorted, the slowest first."""
    text = markdown(results)
    assert "no_indexscan (best alone on training queries)" in text
    assert "| agent | 4 | 0.33 | 0.40 | × 1.5 |" in text
    assert "| agent, asking included | 6 | 0.50 | 2.00 | × 3.0 |" in text
    assert "| a | 1 | 0.10 | × 0.1 |" in text
    assert "| b (never trained on) | 3 | 1.50 | × 1.5 |" in text
    assert text.index("no_nestloop") < text.index("agent") < text.index("oracle")


def test_the_plots_are_drawn(results, tmp_path):
    """As images."""
    draw_curves(tmp_path / "curve.png", [results, results])
    draw_comparison(tmp_path / "comparison.png", results, TABLE, np.array([1, 6]))
    for name in ("curve.png", "comparison.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_written_down_has_the_curve_in_columns(results, tmp_path):
    """And everything that the table has."""
    write_json(tmp_path / "results.json", [results])
    (read,) = json.loads((tmp_path / "results.json").read_text())
    assert read["training"]["curve"]["queries"] == [0, 100]
    assert read["scores"][-1]["name"] == "agent"
    assert math.isclose(read["of_best_static"], 4 / 11)
    assert math.isclose(read["asking_of_best_static"], 5.5 / 11)
    assert (read["split"], read["unseen"]) == ("verdict", ["b"])
