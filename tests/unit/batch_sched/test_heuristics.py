"""The rules, by hand, on three waiting jobs."""

import numpy as np
import pytest

from examples.batch_sched.cluster import Cluster
from examples.batch_sched.heuristics import HEURISTICS, play
from tests.unit.batch_sched.traces import trace_of


@pytest.fixture
def cluster():
    """At 100 s: job 0 has just ended, and jobs 1, 2 and 3 wait since 10, 20 and 60 s."""
    trace = trace_of(
        (0, 100, 100, 8), (10, 400, 1000, 4), (20, 90, 100, 8), (60, 50, 200, 1), (900, 1, 1, 1)
    )
    cluster = Cluster(trace, 8)
    cluster.start(0)
    cluster._advance()
    cluster._advance()
    cluster._advance()
    assert (cluster.time_s, cluster.queue, cluster.free) == (100.0, [1, 2, 3], 8)
    return cluster


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("FCFS", [10, 20, 60]),
        ("SJF", [1000, 100, 200]),
        ("SAF", [4000, 800, 200]),
        ("SAF-LIFO", [4000, 800, 200]),
        # log10(1000)·4 + 870·log10(10), log10(100)·8 + 870·log10(20), …
        ("F1", [12 + 870, 16 + 870 * 1.30103, 2.30103 + 870 * 1.778151]),
        # -(90 / 1000)³·4, -(80 / 100)³·8, -(40 / 200)³·1
        ("WFP3", [-0.002916, -4.096, -0.008]),
        # -90 / (2·1000), -80 / (3·100), -40 / (1·200)
        ("UNICEP", [-0.045, -0.266667, -0.2]),
    ],
)
def test_each_rule_scores_as_its_paper_says(cluster, name, scores):
    """The figures are worked out beside each."""
    found = HEURISTICS[name](cluster, np.asarray(cluster.queue))
    np.testing.assert_allclose(found, scores, rtol=1e-5)


def test_the_lowest_score_goes_first_and_of_equals_the_first_to_come():
    """All are alike; SJF serves them as they came, and one rule turns that round."""
    trace = trace_of(*[(second, 5, 5, 2) for second in range(6)])
    cluster = Cluster(trace, 2)
    play(cluster, HEURISTICS["SJF"])
    assert list(cluster.started) == [0, 1, 2, 3, 4, 5]
    cluster = Cluster(trace, 2)
    play(cluster, HEURISTICS["SAF-LIFO"])
    # Job 1 was alone when it came, so it had its turn before the others were there.
    assert list(cluster.started) == [0, 1, 5, 4, 3, 2]
