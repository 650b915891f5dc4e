"""The live pool: processes that boot, serve, drain and die, under a load that does not wait."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import pytest

from examples.autoscale.control import (
    BOOT_STEPS,
    MIN_REPLICAS,
    SERVICE_S,
    STEP_S,
    ControlLoop,
    Pool,
)
from examples.autoscale.demand import DAY_STEPS, HISTORY, WEEK_STEPS, Span, make_demand
from examples.autoscale.live import play_live
from examples.autoscale.pool import LivePool
from rl4sys_stream.errors import BrokerUnavailableError
from rl4sys_stream.testing import RedisServer, eventually

pytestmark = pytest.mark.integration

RATE = 20.0
"""Requests a second; four replicas have twice the capacity."""


@pytest.fixture
def pool(redis_url: str) -> Iterator[LivePool]:
    """A pool that is closed after the test, whatever happened."""
    with LivePool(redis_url, seed=1) as opened:
        yield opened


def test_a_pool_serves_what_arrives_scales_up_and_drains(pool: LivePool) -> None:
    """Every request is taken once, the new replicas boot first, and nobody dies by draining."""
    pool.begin(4)
    pool.scale(7)
    assert (pool.running, pool.booting) == (4, (0, 0, 3))
    readings = [pool.serve(RATE) for _ in range(BOOT_STEPS)]
    # On a busy machine a process may come late; it then stands in the first slot.
    for _ in range(20):
        if pool.running == 7:
            break
        readings.append(pool.serve(RATE))
    assert (pool.running, pool.booting) == (7, (0, 0, 0))
    pool.scale(3)
    assert pool.running == 3
    for _ in range(20):
        readings.append(pool.serve(0.0))
        if not readings[-1].taken and len(pool.pids) == 3:
            break
    assert len(pool.pids) == 3
    arrived = sum(reading.arrived for reading in readings)
    assert arrived == sum(reading.taken for reading in readings) > 0
    assert readings[-1].waiting == 0
    assert pool.died == 0
    assert sum(reading.busy_s for reading in readings) / arrived == pytest.approx(0.1, abs=0.06)


def test_a_replica_that_is_killed_is_counted_and_replaced(pool: LivePool) -> None:
    """The load goes on meanwhile, and the one that is gone is not taken for drained."""
    pool.begin(4)
    victim = pool.pids[0]
    os.kill(victim, signal.SIGKILL)
    readings = []
    while pool.died == 0:
        readings.append(pool.serve(RATE))
        assert len(readings) < 20
    assert readings[-1].died == 1
    assert (pool.running, sum(pool.booting)) == (3, 1)
    while pool.running < 4:
        readings.append(pool.serve(RATE))
        assert len(readings) < 40
    assert victim not in pool.pids
    assert pool.died == 1


class LateStarter(LivePool):
    """Whose replicas have booted, and were heard, before it knows their process ids."""

    def _start(self, ready_s: float) -> BaseProcess:
        process = super()._start(ready_s)
        eventually(lambda: self._connection.llen(self._keys.taken) == 1, message="it has booted")
        self._hear()
        return process


def test_a_replica_that_boots_before_its_start_returns_is_not_forgotten(redis_url: str) -> None:
    """On a busy machine the new process may be faster than the thread that has started it."""
    with LateStarter(redis_url, seed=1) as pool:
        pool._order(1, time.monotonic())
        pool._replicas[0].process.result()
        assert pool.running == 0
        pool._hear()
        assert pool.running == 1


def test_orders_are_cancelled_before_anything_drains(pool: LivePool) -> None:
    """What is still booting is ended, and is no death."""
    pool.begin(3)
    pool.scale(8)
    pool.serve(RATE)
    pool.scale(3)
    assert (pool.running, pool.booting) == (3, (0, 0, 0))
    for _ in range(BOOT_STEPS + 1):
        pool.serve(RATE)
    assert (pool.running, len(pool.pids), pool.died) == (3, 3, 0)
    pool.scale(0)
    assert pool.running == MIN_REPLICAS


def test_requests_count_from_their_arrival_however_long_the_queue_is(pool: LivePool) -> None:
    """Open loop: twice the capacity makes a queue, and its requests late."""
    pool.begin(2)
    readings = [pool.serve(2 * RATE) for _ in range(6)]
    assert readings[-1].waiting > 10
    assert readings[-1].late == readings[-1].taken > 0


def test_stretched_time_changes_the_clock_and_not_the_queue(redis_url: str) -> None:
    """On a busy machine: steps take twice as long, with the same requests in each."""
    with LivePool(redis_url, seed=1) as plain, LivePool(redis_url, seed=1, stretch=2.0) as slow:
        plain.begin(4)
        expected = [plain.serve(RATE) for _ in range(4)]
        slow.begin(4)
        begun_s = time.monotonic()
        readings = [slow.serve(RATE) for _ in range(4)]
        assert time.monotonic() - begun_s == pytest.approx(4 * 2 * STEP_S, rel=0.2)
    assert [one.arrived for one in readings] == [one.arrived for one in expected]
    assert sum(one.busy_s for one in readings) / sum(
        one.taken for one in readings
    ) == pytest.approx(SERVICE_S, rel=0.8)


def test_closing_leaves_no_process_and_no_key(redis_server: RedisServer) -> None:
    """A demo that ends must not leave eighty processes."""
    with LivePool(redis_server.url, seed=1) as pool:
        pool.begin(3)
        pool.serve(RATE)
        pids = pool.pids
    assert len(pids) == 3
    eventually(lambda: not any(_alive(pid) for pid in pids), message="the replicas end")
    assert not multiprocessing.active_children()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_pool_whose_broker_is_gone_says_so_and_leaves_nobody_behind() -> None:
    """A demo then ends with one sentence, not with eighty processes."""
    with RedisServer() as server, LivePool(server.url, seed=1) as pool:
        pool.begin(3)
        pids = pool.pids
        server.kill()
        with pytest.raises(BrokerUnavailableError, match="live pool"):
            pool.serve(RATE)
    eventually(lambda: not any(_alive(pid) for pid in pids), message="the replicas end")


def test_controllers_play_live_side_by_side(redis_url: str) -> None:
    """Each on a pool of its own, under the same arrivals."""
    demand = make_demand([10.0] * (WEEK_STEPS // 6), peak_rate=RATE)
    span = Span(HISTORY, HISTORY + 4)
    runs = play_live(
        {"four": lambda: lambda _: 4, "six": lambda: lambda _: 6}, demand, span, redis_url, 1
    )
    assert list(runs) == ["four", "six"]
    four, six = runs["four"].outcomes, runs["six"].outcomes
    assert [one.reading.arrived for one in four] == [one.reading.arrived for one in six]
    assert [one.replicas for one in six] == [6] * 4


def test_a_live_pool_is_a_pool(pool: LivePool) -> None:
    """The control loop takes it like a twin."""
    asked: Pool = pool
    loop = ControlLoop(asked, make_demand([10.0] * (WEEK_STEPS // 6), peak_rate=RATE))
    loop.begin(Span(DAY_STEPS, DAY_STEPS + 2))
    outcome = loop.step(4)
    assert outcome.replicas == 4
    assert loop.view.observation().shape == (19,)
