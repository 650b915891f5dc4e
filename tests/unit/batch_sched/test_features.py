"""What the agent sees of a queue."""

import math

import numpy as np
import pytest

from examples.batch_sched.cluster import Cluster
from examples.batch_sched.features import FEATURES, PLACES, look
from tests.unit.batch_sched.traces import trace_of


@pytest.fixture
def cluster():
    """At 4 s: job 0 of user 0 has run for 3 s; job 1 holds 2 of 4 processors; 2 and 3 wait."""
    trace = trace_of((0, 3, 3, 2), (1, 9, 30, 2), (2, 5, 20, 3), (4, 5, 40, 2))
    cluster = Cluster(trace, 4)
    cluster.start(0)
    cluster.start(1)
    cluster._advance()  # 0 ends
    cluster._advance()  # 3 arrives
    assert (cluster.time_s, cluster.queue) == (4.0, [2, 3])
    return cluster


def test_a_job_shows_what_is_known_of_it_before_it_runs(cluster):
    """Its request, and never how long it will really take."""
    view = look(cluster)
    wide = [math.log(3), math.log(20), math.log(3), math.log(60), 0, 0.5, math.log(22 / 20)]
    narrow = [0, math.log(40), math.log(2), math.log(80), 1, 0.5, 0]
    np.testing.assert_allclose(view.observation[0, :7], wide, rtol=1e-5)
    np.testing.assert_allclose(view.observation[1, :7], narrow, rtol=1e-5)
    assert view.jobs == [2, 3]


def test_a_job_shows_how_long_its_users_last_ones_took(cluster):
    """User 0 has one that ran for 3 s, user 2 none; each has half of the queue."""
    view = look(cluster)
    assert view.observation[0, 7:].tolist() == [0, 0, 0, 0, 0.5]
    np.testing.assert_allclose(view.observation[1, 7:], [math.log(3)] * 3 + [1, 0.5], rtol=1e-5)


def test_where_there_is_no_job_there_is_nothing(cluster):
    """The mask says so, to the policy and to the critic."""
    view = look(cluster)
    assert view.observation.shape == (PLACES, FEATURES)
    assert view.mask.tolist() == [True] * 2 + [False] * (PLACES - 2)
    assert not view.observation[2:].any()
    assert not view.prior[2:].any()


def test_the_prior_prefers_the_smallest_area(cluster):
    """By 1.5 logits for each e-fold."""
    prior = look(cluster).prior
    assert prior[1] - prior[0] == pytest.approx(1.5 * math.log(60 / 80), rel=1e-5)


def test_of_a_long_queue_the_first_to_come_are_seen():
    """The others are once these have gone."""
    trace = trace_of((0, 100, 100, 1), *[(1, 5, 5, 1)] * (PLACES + 20))
    cluster = Cluster(trace, 1)
    cluster.start(0)
    assert len(cluster.queue) == PLACES + 20
    view = look(cluster)
    assert view.jobs == list(range(1, PLACES + 1))
    assert view.mask.all()
