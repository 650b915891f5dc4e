"""Training that is killed ten times ends at the same bits as training that never was.

What is compared is every version of both runs: the weights as published, the checkpoint (critic,
optimizer, generator, observation statistics) and the episode statistics beside it.

One thing is held fixed: which trajectories make up which rollout. Rollouts grow with the backlog
(`Session._grows`), and the backlog that a worker sees depends on when it looks: on the speed of its
reading, and on how long it was dead (30 rollouts sent at once made 7 versions, one by one 30). So a
run with growth is not reproducible, killed or not. It is where growth cannot happen: either no
trajectory is ever too old (`max_policy_lag` is huge, as `World.define` sets it), or the data comes
rollout by rollout and nothing waits.
"""

import functools
import signal

import numpy as np
import pytest

from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.trajectory import Trajectory
from tests.fault.deaths import STEPS as DEATHS
from tests.fault.deaths import dies_at
from tests.integration.worker.world import ROLLOUT, STEPS, World
from tests.unit.worker.entries import trajectory

pytestmark = pytest.mark.fault

KILLS = 10
EPOCHS = 4
MINIBATCHES = STEPS * ROLLOUT // 16
MOST_ROLLOUTS = 3
"""That a worker commits before it dies."""
LAST = 1 + KILLS * MOST_ROLLOUTS
"""Version at which the data ends; no worker outlives it."""
QUICK = {"lease_s": 0.31, "lease_renew_s": 0.1}
PARAMETERS = {
    "normalize_observations": True,
    "n_epochs": EPOCHS,
    # A schedule, so that a restart that forgot its progress would show.
    "learning_rate_schedule": "linear",
    "total_timesteps": 2 * LAST * STEPS * ROLLOUT,
}


def deaths(rng: np.random.Generator) -> list[tuple[str, int]]:
    """Ten of them: every step at least once, in any order, after any number of rollouts."""
    steps = [*DEATHS, *rng.choice(DEATHS, KILLS - len(DEATHS))]
    rng.shuffle(steps)
    # Of what there is more than one a rollout.
    most = {"read": ROLLOUT, "learn": EPOCHS * MINIBATCHES}
    calls = [int(rng.integers(1, most.get(step, 1) * MOST_ROLLOUTS + 1)) for step in steps]
    return [(str(step), call) for step, call in zip(steps, calls, strict=True)]


def check_same(killed: World, undisturbed: World) -> None:
    """The same bits in every version; the last one's, not only their digests."""
    one, other = undisturbed.digests(), killed.digests()
    assert len(set(one)) == len(one) == LAST
    assert one == other
    heads = [(world, world.reaches(LAST)) for world in (undisturbed, killed)]
    last = [world.broker.hash_all(head.checkpoint) for world, head in heads]
    assert last[0] == last[1]
    assert b"chunk0" in last[0]
    killed.check_exactly_once()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ten_kills_at_any_step_do_not_change_a_bit(make_world, redis_url, client_name, seed):
    """Of read, learn, stage and commit; everything was sent before, so only the kills differ."""
    check_kills(make_world, redis_url, client_name, deaths(np.random.default_rng(seed)))


def test_kills_over_one_update_after_another_do_not_change_a_bit(
    make_world, redis_url, client_name
):
    """A third worker suspects the samples, tries them in a child, and finds them innocent."""
    once = [("learn", call) for call in (1, 2, EPOCHS * MINIBATCHES)]
    check_kills(make_world, redis_url, client_name, [*once, ("note", 1), *once, ("stage", 1)])


def check_kills(make_world, redis_url, client_name, plan: list[tuple[str, int]]) -> None:
    """Run with and without the deaths of `plan`, and compare."""
    undisturbed = make_world(redis_url, f"{client_name}_a")
    killed = make_world(redis_url, f"{client_name}_b")
    for world in (undisturbed, killed):
        world.define(parameters=PARAMETERS, **QUICK)
        world.feeder().send((LAST - 1) * ROLLOUT)
    undisturbed.start()
    for step, call in plan:
        assert killed.start(environ=dies_at(step, call)).wait() == -signal.SIGKILL
    assert killed.version() <= LAST
    killed.start()
    killed.reaches(LAST)
    undisturbed.reaches(LAST)
    check_same(killed, undisturbed)


def test_with_growing_rollouts_the_same_holds_rollout_by_rollout(
    make_world, redis_url, client_name
):
    """The default `max_policy_lag`, so rollouts may grow; but nothing waits, so none does."""
    undisturbed, killed = (make_world(redis_url, f"{client_name}_{name}") for name in "ab")
    for world in (undisturbed, killed):
        world.define(parameters=PARAMETERS, max_policy_lag=8, **QUICK)
    plans = [[], deaths(np.random.default_rng(4))]
    for world, plan in zip((undisturbed, killed), plans, strict=True):
        feed_rollout_by_rollout(world, plan)
        assert not plan
    assert [worker.poll() for worker in killed.workers].count(-signal.SIGKILL) >= KILLS - 1
    check_same(killed, undisturbed)


def feed_rollout_by_rollout(world: World, plan: list[tuple[str, int]]) -> None:
    """Each acted by the newest version; whenever the worker has died, the next death's begins."""

    def start() -> None:
        world.start(environ=dies_at(*plan.pop(0)) if plan else {})

    feeder = world.feeder()
    start()
    for version in range(1, LAST + 1):
        while not reached_or_dead(world, version):
            assert world.workers[-1].poll() == -signal.SIGKILL, world.workers[-1].log
            start()
        if version < LAST:
            head = world.reaches(version)
            behavior = [(head.version, head.token)]
            feeder.send(ROLLOUT, functools.partial(acted, behavior))


def acted(behavior: list[tuple[int, str]], seq: int) -> Trajectory:
    """The trajectory of a number, by a model."""
    return trajectory(STEPS, seed=seq, behavior=behavior)


def reached_or_dead(world: World, version: int) -> bool:
    """Wait for the version or the end of the worker; whether it was the version."""
    eventually(
        lambda: world.version() >= version or world.workers[-1].poll() is not None,
        20,
        f"version {version} or the end of the worker",
    )
    return world.version() >= version
