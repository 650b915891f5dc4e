"""One trajectory that the learner cannot take: it alone is set aside, whatever it does."""

import os
import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.wire.trajectory import Trajectory
from rl4sys_stream.worker.isolation import ends_a_process, find_culprits
from tests.fault.poison import KILLS, RAISES
from tests.integration.worker.world import ROLLOUT, STEPS, World
from tests.unit.worker.entries import trajectory

pytestmark = pytest.mark.fault

ALGORITHM = "tests.fault.poison:make"


def _poison(reward: float) -> Callable[[int], Trajectory]:
    return lambda seq: trajectory(STEPS, seed=seq, reward=reward)


def _check(world: World, *, poisoned: list[int], sent: int) -> Any:
    rows: Any = world.broker.redis.xrange(world.keys.quarantine)
    assert [int(fields[b"seq"]) for _, fields in rows] == poisoned
    assert {seq for _, seq in world.taken()} == set(range(1, sent + 1)) - set(poisoned)
    report = audit_client(world.broker, world.keys)
    assert report.closes
    assert report.total("trained") == sent - len(poisoned)
    assert report.total("quarantined") == len(poisoned)
    return rows


def test_a_trajectory_that_makes_an_update_raise_is_set_aside_alone(world):
    """Its neighbours in the rollout are trained on, and the worker goes on."""
    worker = world.start(algorithm=ALGORITHM)
    world.reaches(1)
    feeder = world.feeder()
    feeder.send(2)
    feeder.send(1, _poison(RAISES))
    feeder.send(ROLLOUT - 2)
    world.reaches(2)
    rows = _check(world, poisoned=[3], sent=ROLLOUT + 1)
    assert b"a shape that nobody thought of" in rows[0][1][b"reason"]
    assert worker.poll() is None


def test_a_trajectory_that_makes_losses_infinite_is_set_aside_alone(world):
    """An honest agent's data does not go to the quarantine with it."""
    worker = world.start()
    world.reaches(1)
    feeder = world.feeder()
    feeder.send(1, _poison(3e38))
    feeder.send(ROLLOUT)
    world.reaches(2)
    rows = _check(world, poisoned=[1], sent=ROLLOUT + 1)
    assert b"NonFiniteError" in rows[0][1][b"reason"]
    assert worker.poll() is None


def test_a_trajectory_that_kills_the_worker_is_set_aside_by_the_third(world):
    """Two workers die of it; the one after them tries in children, and outlives it."""
    world.define()
    world.register()
    feeder = world.feeder()
    feeder.send(3)
    feeder.send(1, _poison(KILLS))
    for _ in range(2):
        assert world.start(algorithm=ALGORITHM).wait() == -9
        assert world.version() == 1
    survivor = world.start(algorithm=ALGORITHM)
    survivor.says("worker.samples_set_aside")
    feeder.send(1)
    world.reaches(2)
    rows = _check(world, poisoned=[4], sent=5)
    assert b"end the worker" in rows[0][1][b"reason"]
    assert survivor.poll() is None


def test_workers_that_others_killed_are_no_reason_for_suspicion(world):
    """Three kills in a row during an update; the data is trained on, not quarantined."""
    world.define()
    world.register()
    feeder = world.feeder()
    for _ in range(3):
        worker = world.start()
        world.reaches(1)
        worker.kill()
    feeder.send(2 * ROLLOUT)
    world.start()
    world.reaches(3)
    _check(world, poisoned=[], sent=2 * ROLLOUT)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 100, 1000])
def test_a_few_culprits_are_found_among_many(count):
    """In their order, and in few trials."""
    rng = random.Random(count)
    for wanted in (1, min(3, count)):
        culprits = sorted(rng.sample(range(count), wanted))
        trials: list[int] = []

        def fails(
            items: Sequence[int], culprits: list[int] = culprits, trials: list[int] = trials
        ) -> bool:
            trials.append(len(items))
            return not set(culprits).isdisjoint(items)

        assert find_culprits(range(count), fails) == culprits
        assert sum(trials) <= 2 * wanted * count + count


def test_a_batch_that_fails_only_as_a_whole_has_no_culprits():
    """Training diverged: no sample is to blame."""
    assert find_culprits(range(64), lambda items: len(items) > 20) is None


def test_an_exception_does_not_end_a_process_and_a_signal_does():
    """A trial in a child tells them apart."""
    assert not ends_a_process(lambda: None)
    assert not ends_a_process(lambda: 1 / 0)
    assert ends_a_process(lambda: os.kill(os.getpid(), signal.SIGKILL))
