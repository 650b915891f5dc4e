"""The twin is a queue: it does what a plain simulation of events does, request by request."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.autoscale.control import (
    BOOT_STEPS,
    LATE_S,
    MAX_REPLICAS,
    MIN_REPLICAS,
    REPLICA_RATE,
    SERVICE_S,
)
from examples.autoscale.twin import Twin
from tests.unit.autoscale.queue_reference import QueueReference

STEPS = st.lists(
    st.tuples(st.integers(MIN_REPLICAS, MAX_REPLICAS), st.floats(0.0, 400.0)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), begin=st.integers(MIN_REPLICAS, 40), steps=STEPS)
def test_each_step_is_that_of_a_simulation_event_by_event(seed, begin, steps):
    """Scaled up and down at random, under loads from nothing to twice what it can bear."""
    twin, reference = Twin(seed), QueueReference(seed, begin)
    twin.begin(begin)
    for target, rate in steps:
        twin.scale(target)
        reference.scale(target, MIN_REPLICAS)
        mine, its = twin.serve(rate), reference.serve(rate)
        assert (mine.arrived, mine.taken, mine.late, mine.waiting) == (
            its.arrived,
            its.taken,
            its.late,
            its.waiting,
        )
        assert mine.busy_s == pytest.approx(its.busy_s)
        assert twin.running == reference.replicas
        assert twin.booting == tuple(reference.booting)


def test_waiting_is_as_frequent_as_queueing_theory_says():
    """Of M/M/c, the share that waits longer than t is C(c, a) exp(-(c mu - lambda) t)."""
    servers, rate = 10, 80.0
    load = rate * SERVICE_S
    blocked = load**servers / math.factorial(servers) * servers / (servers - load)
    erlang_c = blocked / (sum(load**k / math.factorial(k) for k in range(servers)) + blocked)
    expected = erlang_c * math.exp(-(servers * REPLICA_RATE - rate) * LATE_S)
    twin = Twin(1)
    twin.begin(servers)
    readings = [twin.serve(rate) for _ in range(20_000)]
    late = sum(reading.late for reading in readings) / sum(reading.taken for reading in readings)
    assert late == pytest.approx(expected, rel=0.06)


def test_an_ordered_replica_serves_after_it_has_booted():
    """Ordered in step 0, it runs from step 3 on; until then it stands in the slots."""
    twin = Twin(1)
    twin.begin(5)
    twin.scale(9)
    seen = []
    for _ in range(BOOT_STEPS):
        seen.append((twin.running, twin.booting))
        twin.serve(10.0)
    assert seen == [(5, (0, 0, 4)), (5, (0, 4, 0)), (5, (4, 0, 0))]
    assert (twin.running, twin.booting) == (9, (0, 0, 0))


def test_scaling_down_cancels_the_youngest_orders_first():
    """What is not there yet costs no request anything."""
    twin = Twin(1)
    twin.begin(5)
    twin.scale(7)
    twin.serve(0.0)
    twin.scale(10)
    twin.scale(6)
    assert (twin.running, twin.booting) == (5, (0, 1, 0))
    twin.scale(MIN_REPLICAS)
    assert (twin.running, twin.booting) == (MIN_REPLICAS, (0, 0, 0))


def test_controllers_meet_the_same_requests_whatever_they_do():
    """So that comparisons are of controllers, not of luck."""
    few, many = Twin(3), Twin(3)
    few.begin(3)
    many.begin(60)
    assert [few.serve(200.0).arrived for _ in range(20)] == [
        many.serve(200.0).arrived for _ in range(20)
    ]


def test_what_has_waited_too_long_is_dropped_and_counts_as_late():
    """Two replicas under 200 requests a second serve 20 of them; the others are not kept."""
    twin = Twin(5)
    twin.begin(2)
    readings = [twin.serve(200.0) for _ in range(40)]
    served = sum(reading.busy_s for reading in readings) / SERVICE_S
    taken = sum(reading.taken for reading in readings)
    assert served == pytest.approx(2 * REPLICA_RATE * 20.0, rel=0.2)
    assert taken > 5 * served
    assert np.mean([reading.late / reading.taken for reading in readings[10:]]) > 0.99
