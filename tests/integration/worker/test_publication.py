"""What a worker publishes: on a grid or not, over restarts, and over changes of the setting."""

import numpy as np
import pytest

from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.model_store.notice import MAX_PASSENGER_BYTES, read_notice
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.worker.checkpoint import read_checkpoint
from tests.integration.worker.world import ROLLOUT, World

pytestmark = pytest.mark.integration


def codec(world: World, version: int) -> str:
    """How a version was published."""
    head = world.head()
    assert head is not None
    (token,) = (entry.token for entry in head.manifest if entry.version == version)
    (found,) = world.broker.hash_get(world.keys.model(version, token), "codec")
    assert found is not None
    return found.decode()


def test_published_weights_lie_on_the_grid_that_the_checkpoint_names(world: World):
    """And the learner's own do not: it goes on from what it had."""
    world.start()
    world.feeder().send(2 * ROLLOUT)
    head = world.reaches(3)
    assert codec(world, 3) == "compact"
    found = read_checkpoint(world.broker, head.checkpoint)
    assert found.grid is not None
    model = ModelSubscriber(world.broker, world.keys).read(3)
    learned = model.weights.layout.split(found.state.arrays["pi"].astype(np.float32))
    assert not np.array_equal(found.state.arrays["pi"], model.weights.flat)
    tensors = model.weights.tensors().items()
    for (name, tensor), exponent in zip(tensors, found.grid.exponents, strict=True):
        step = np.float32(2.0**exponent)
        assert (tensor == np.rint(learned[name] / step) * step).all()
    effect = read_metrics(world.broker, world.keys)[-1].metrics["publish/rounding_effect"]
    assert 0 <= effect <= 1e-4


def test_the_chain_of_diffs_goes_on_over_a_restart(world: World):
    """Agents that were there before need no keyframe: the new worker knows what was published."""
    worker = world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    subscriber = ModelSubscriber(world.broker, world.keys)
    held = subscriber.refresh(None)
    assert worker.stop() == 0
    world.start()
    feeder.send(ROLLOUT)
    head = world.reaches(3)
    assert head.manifest[-1].diff_bytes
    assert not head.manifest[-1].full_bytes
    found = subscriber.refresh(held)
    assert found is not None
    assert found.version == 3


def test_a_changed_codec_is_taken_up_at_the_next_version(world: World):
    """From exact to compact by a keyframe, back by a diff; whoever follows gets all of them."""
    feeder = world.feeder()
    subscriber = ModelSubscriber(world.broker, world.keys)
    held, codecs = None, []
    for number, name in enumerate(("exact", "compact", "exact"), start=1):
        world.define(model_codec=name)
        worker = world.start()
        feeder.send(ROLLOUT)
        head = world.reaches(number + 1)
        codecs.append(codec(world, number + 1))
        assert bool(head.manifest[-1].diff_bytes) == (name == "exact")
        held = subscriber.refresh(held)
        assert held is not None
        assert held.version == number + 1
        grid = read_checkpoint(world.broker, head.checkpoint).grid
        assert (grid is None) == (name == "exact")
        assert worker.stop() == 0
    assert codecs == ["exact", "compact", "exact"]


def test_the_notice_of_a_version_carries_its_diff(world: World):
    """The usual way to a new version costs no read."""
    pubsub = world.broker.redis.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(world.keys.updates)
    pubsub.get_message(timeout=5)
    world.start()
    world.feeder().send(ROLLOUT)
    world.reaches(2)
    told = []
    while (message := pubsub.get_message(timeout=1)) is not None:
        told.append(read_notice(message["data"]))
    pubsub.close()
    versions = [notice for notice in told if notice.version]
    assert [notice.version for notice in versions] == [1, 2]
    assert [bool(notice.diff) for notice in versions] == [False, True]
    assert versions[1].base_version == 1
    assert len(versions[1].diff) <= MAX_PASSENGER_BYTES
