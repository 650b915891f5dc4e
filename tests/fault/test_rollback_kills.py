"""Workers that die in the middle of a rollback: it happens once, whole, or not at all yet."""

import pytest

from rl4sys_stream.broker.control import read_control
from rl4sys_stream.broker.control_log import read_control_log
from rl4sys_stream.broker.steering import Cause, request_rollback
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from tests.fault.deaths import dies_at
from tests.integration.worker.world import ROLLOUT

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("step", ["checkpoint", "stage", "commit", "note"])
def test_a_kill_at_any_step_of_a_rollback_leaves_it_to_the_next_worker_or_done(world, step):
    """One version more than before, that of the target; and training goes on from it."""
    worker = world.start()
    feeder = world.feeder()
    feeder.send(3 * ROLLOUT)
    world.reaches(4)
    assert worker.stop() == 0
    request_rollback(world.broker, world.keys, 2, Cause("alice@ops", 1, "it fell"))
    dying = world.start(environ=dies_at(step, 1))
    assert dying.wait() < 0
    carried_out = step in {"commit", "note"}
    assert world.version() == (5 if carried_out else 4)
    assert (read_control(world.broker, world.keys).request is None) == carried_out
    world.start()
    world.reaches(5)
    feeder.send(ROLLOUT)
    world.reaches(6)
    subscriber = ModelSubscriber(world.broker, world.keys)
    assert subscriber.read(5).weights.flat.tobytes() == subscriber.read(2).weights.flat.tobytes()
    log = [one.what for one in read_control_log(world.broker, world.keys)]
    assert log == ["rollback requested", "rolled back"]
    world.check_exactly_once()
