"""Keys that somebody has deleted, damaged or replaced: what stops a worker, and what does not."""

import pytest

from rl4sys_stream.broker.admin import reset_client
from rl4sys_stream.broker.registry import read_worker_report
from rl4sys_stream.testing import eventually
from tests.integration.worker.world import ROLLOUT, WorkerProcess, World

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("gone", [("one",), ("one", "two")])
def test_a_worker_does_not_go_on_without_the_watermarks_of_what_was_trained(world, gone):
    """It says what is lost and what to do; what is offered again is not trained twice."""
    worker = world.start()
    for agent_id in ("one", "two"):
        world.feeder(agent_id).send(ROLLOUT)
    world.reaches(2)
    eventually(lambda: sum(world.taken().values()) == 2 * ROLLOUT)
    assert worker.stop() == 0
    saved = world.broker.hash_all(world.keys.seq)
    for agent_id in gone:
        world.broker.call("HDEL", world.keys.seq, agent_id)
    stopped = world.start()
    assert stopped.wait() == 65
    assert f"was trained on {2 * ROLLOUT} trajectories" in stopped.log
    assert f"clients reset {world.client}" in stopped.log
    world.broker.redis.hset(world.keys.seq, mapping=dict(saved))
    again = world.start()
    world.feeders[0].send(2 * ROLLOUT)
    eventually(lambda: sum(world.taken().values()) == 4 * ROLLOUT)
    world.check_exactly_once()
    assert again.stop() == 0
    world.broker.unlink(world.keys.seq)
    lineage = reset_client(world.broker, world.keys)
    world.start()
    assert world.reaches(1).lineage == lineage


def check_named(world: World, worker: WorkerProcess, name: str, what: str) -> None:
    """It has stopped on account of that key, says so, and starts again once that is gone."""
    assert worker.wait() == 65
    key = getattr(world.keys, name)
    assert f"{key} is a string, not a {what}" in worker.log
    assert "UNLINK" in worker.log
    if name != "worker":
        report = read_worker_report(world.broker, world.keys)
        assert report is not None
        assert report.state == "failed"
        assert key in report.detail


def test_a_worker_stops_where_something_else_stands_in_the_place_of_a_key(world):
    """It names the key, and goes on from the same version once that is gone."""
    worker = world.start()
    world.reaches(1)
    world.broker.unlink(world.keys.metrics)
    world.broker.call("SET", world.keys.metrics, "a note")
    world.feeder().send(ROLLOUT)
    check_named(world, worker, "metrics", "stream")
    world.broker.unlink(world.keys.metrics)
    world.start()
    world.reaches(2)


@pytest.mark.parametrize(
    ("name", "what"),
    [("head", "hash"), ("seq", "hash"), ("traj", "stream"), ("spec", "hash"), ("worker", "hash")],
)
def test_a_worker_does_not_begin_where_something_else_stands_in_the_place_of_a_key(
    world, name, what
):
    """The broker answers, so it is not down, and waiting for it would be for ever."""
    key = getattr(world.keys, name)
    world.broker.call("SET", key, "a note")
    check_named(world, world.start(), name, what)
    world.broker.unlink(key)
    world.start()
    world.reaches(1)


@pytest.mark.parametrize(("name", "what"), [("traj", "stream"), ("agents", "hash")])
def test_a_running_worker_finds_out_which_key_was_replaced(world, name, what):
    """While it reads, and while it looks after its agents."""
    worker = world.start()
    world.reaches(1)
    key = getattr(world.keys, name)
    world.feeder().send(1)
    eventually(lambda: world.broker.call("EXISTS", key))
    world.broker.unlink(key)
    world.broker.call("SET", key, "a note")
    check_named(world, worker, name, what)
