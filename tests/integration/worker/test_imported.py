"""A worker that begins at an imported version: with its actor, and a critic of its own."""

import numpy as np
import pytest

from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.steering import Cause
from rl4sys_stream.exchange.importing import import_model
from rl4sys_stream.exchange.package import read_package
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from tests.integration.worker.world import ROLLOUT

pytestmark = pytest.mark.integration

CAUSE = Cause("alice@ops", 1, "")


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_a_worker_begins_with_the_imported_actor(make_world, redis_url, client_name, algorithm):
    """Its first update starts from those weights; from then on there are checkpoints."""
    twin = make_world(redis_url, f"{client_name}_twin")
    live = make_world(redis_url, client_name)
    twin.define(algorithm=algorithm, parameters={"seed": 1})
    live.define(algorithm=algorithm, parameters={"learning_rate": 1e-12})
    twin.start()
    twin.reaches(1)
    package = read_package(twin.broker, twin.keys, 1)
    import_model(live.broker, live.keys, package, CAUSE, force=False, pause=lambda: None)
    worker = live.start()
    live.feeder().send(2 * ROLLOUT)
    head = live.reaches(3)
    assert head.checkpoint
    found = ModelSubscriber(live.broker, live.keys).read(3)
    # A learning rate of next to nothing: what it began with is what it still is.
    assert np.allclose(found.weights.flat, package.weights.flat, atol=1e-6)
    assert worker.stop() == 0
    live.start()
    live.feeders[-1].send(ROLLOUT)
    live.reaches(4)


def test_an_import_by_force_is_what_a_running_worker_goes_on_from(
    make_world, redis_url, client_name
):
    """It notices that it was fenced off, and begins again at the import."""
    twin = make_world(redis_url, f"{client_name}_twin")
    live = make_world(redis_url, client_name)
    twin.define(parameters={"seed": 1})
    live.define(parameters={"learning_rate": 1e-12})
    twin.start()
    twin.reaches(1)
    live.start()
    live.reaches(1)
    package = read_package(twin.broker, twin.keys, 1)
    head = import_model(live.broker, live.keys, package, CAUSE, force=True, pause=lambda: None)
    assert head.version == 2
    live.feeder().send(2 * ROLLOUT)
    live.reaches(4)
    found = ModelSubscriber(live.broker, live.keys).read(4)
    assert np.allclose(found.weights.flat, package.weights.flat, atol=1e-6)
    after = read_head(live.broker, live.keys)
    assert after is not None
    assert after.counts.trained == 2 * ROLLOUT
