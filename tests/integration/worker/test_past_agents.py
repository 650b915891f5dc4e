"""Agents that went long ago, as the worker meets them that begins after that."""

import pytest

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.ledger import read_ledgers
from rl4sys_stream.broker.past import read_past
from rl4sys_stream.testing import eventually
from tests.integration.worker.world import ROLLOUT, STEPS
from tests.unit.worker.entries import entry_fields, trajectory

pytestmark = pytest.mark.integration

LONG_AGO_MS = 1


def test_nothing_that_a_long_silent_agent_offers_again_is_trained_twice(world):
    """One had closed and its spool came back; one was cut off for longer than it is remembered."""
    worker = world.start()
    feeders = [world.feeder("closed"), world.feeder("cut-off")]
    for feeder in feeders:
        feeder.send(ROLLOUT)
    world.reaches(3)
    assert worker.stop() == 0
    for feeder in feeders:
        feeder.beat(closed=feeder.agent_id == "closed", time_ms=LONG_AGO_MS)

    world.start()
    eventually(lambda: read_past(world.broker, world.keys).trained == ROLLOUT)
    for feeder in feeders:
        again = [
            entry_fields(feeder.agent_id, seq, trajectory(STEPS, seed=seq), floor=1)
            for seq in feeder.sent
        ]
        feeder.append(again)
    world.feeder("new").send(ROLLOUT)
    world.reaches(4)
    eventually(lambda: audit_client(world.broker, world.keys).total("duplicates") == 2 * ROLLOUT)
    world.check_exactly_once()
    ledger = read_ledgers(world.broker, world.keys)["closed"]
    assert (ledger.retired, ledger.watermark, ledger.trained) == (ROLLOUT, ROLLOUT, 0)


def test_sums_that_somebody_damaged_are_no_reason_not_to_train(world):
    """They are bookkeeping; the worker says so and goes on."""
    world.start().stop()
    feeder = world.feeder("closed")
    feeder.beat(closed=True, time_ms=LONG_AGO_MS)
    world.broker.hash_set(world.keys.past, {"agents": "many"})
    worker = world.start()
    worker.says("worker.agents_not_retired")
    world.feeder("new").send(ROLLOUT)
    world.reaches(2)
    assert worker.stop() == 0
