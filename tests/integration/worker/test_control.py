"""What a worker does about its client's control: it keeps what is named, and rolls back."""

from collections.abc import Callable

import msgspec
import pytest

from rl4sys_stream.broker.admin import reset_client
from rl4sys_stream.broker.commit import PRUNED_GRACE_S
from rl4sys_stream.broker.control import Selection, read_control
from rl4sys_stream.broker.control_log import read_control_log
from rl4sys_stream.broker.registry import AgentHeartbeat, read_worker_report, write_heartbeat
from rl4sys_stream.broker.steering import (
    Cause,
    pin,
    promote,
    request_rollback,
    resumable_versions,
    stop,
    unpin,
    withdraw_rollback,
)
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import UnknownVersionError
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.trajectory import Trajectory
from tests.integration.worker.world import ROLLOUT, STEPS, World
from tests.unit.worker.entries import trajectory

pytestmark = pytest.mark.integration

ALL = Selection()
CAUSE = Cause("alice@ops", 1_700_000_000_000, "it fell")


def ttl(world: World, key: str) -> int:
    """Seconds until a key expires; -1 for never, -2 if it is gone."""
    return int(world.broker.call("TTL", key))


def what(world: World) -> list[str]:
    """What the log of the control says happened."""
    return [one.what for one in read_control_log(world.broker, world.keys)]


def test_a_pinned_version_and_its_checkpoint_outlive_the_pruning(world):
    """Also under the next worker; unpinned, it goes."""
    world.define(retain_versions=2)
    worker = world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    first = world.reaches(2)
    name = (2, first.token)
    pin(world.broker, world.keys, 2, ALL, CAUSE)
    feeder.send(10 * ROLLOUT)
    world.reaches(12)
    assert worker.stop() == 0
    world.start()
    feeder.send(4 * ROLLOUT)
    head = world.reaches(16)
    kept = [entry.version for entry in head.manifest]
    assert 2 in kept
    assert 7 not in kept
    assert ttl(world, world.keys.model(*name)) == -1
    assert ttl(world, world.keys.checkpoint(*name)) == -1
    assert ModelSubscriber(world.broker, world.keys).read(2).token == name[1]
    assert head.manifest[0].version == 1, "the way to it"
    assert not world.broker.call("EXISTS", world.keys.checkpoint(1, first.token))
    assert 2 in [one.version for one in resumable_versions(world.broker, world.keys, head)]
    unpin(world.broker, world.keys, "", CAUSE)
    feeder.send(ROLLOUT)
    head = world.reaches(17)
    assert head.manifest[0].version > 2
    needed = {world.keys.checkpoint(entry.version, entry.token) for entry in head.manifest}
    found = world.broker.redis.scan_iter(f"{world.keys.checkpoint(0, '').partition(':0:')[0]}:*")
    assert {key.decode() for key in found} == needed
    assert 0 < ttl(world, world.keys.model(*name)) <= PRUNED_GRACE_S


def test_a_rollback_makes_an_older_version_the_head_and_the_learners_own(world):
    """Training goes on from its critic and optimizer, whatever came in meanwhile; once, no more."""
    world.start()
    feeder = world.feeder()
    feeder.send(4 * ROLLOUT + 2)
    world.reaches(5)
    request_rollback(world.broker, world.keys, 2, CAUSE)
    head = world.reaches(6)
    subscriber = ModelSubscriber(world.broker, world.keys)
    assert subscriber.read(6).weights.flat.tobytes() == subscriber.read(2).weights.flat.tobytes()
    entry = head.manifest[1]
    states = [
        world.broker.hash_get(key, "digest")[0]
        for key in (world.keys.checkpoint(2, entry.token), head.checkpoint)
    ]
    assert states[0] == states[1]
    (data,) = world.broker.hash_get(head.model, "provenance")
    assert msgspec.json.decode(data or b"")["origin"] == f"rollback to version 2 of {entry.token}"
    assert read_control(world.broker, world.keys).request is None
    assert what(world) == ["rollback requested", "rolled back"]
    record = read_control_log(world.broker, world.keys)[-1]
    assert (record.version, record.reason) == (6, "it fell")
    assert "asked for by alice@ops" in record.detail
    feeder.send(ROLLOUT - 2)
    head = world.reaches(7)
    assert subscriber.read(7).weights.flat.tobytes() != subscriber.read(3).weights.flat.tobytes()
    world.check_exactly_once()
    assert [one.version for one in head.manifest] == list(range(1, 8))


def test_a_rollback_of_a_replay_buffers_learner_keeps_the_buffer(
    make_world, redis_url, client_name
):
    """What agents experienced has happened, whatever became of the policy."""
    world = make_world(redis_url, client_name)
    world.define(algorithm="DQN")
    world.start()
    feeder = world.feeder()
    feeder.send(3 * ROLLOUT)
    before = world.reaches(4)
    assert before.retained == 3 * ROLLOUT
    request_rollback(world.broker, world.keys, 3, CAUSE)
    assert world.reaches(5).retained == 3 * ROLLOUT
    feeder.send(ROLLOUT)
    head = world.reaches(6)
    assert head.retained == 4 * ROLLOUT
    assert head.counts.trained == 4 * ROLLOUT


def test_without_a_worker_the_request_waits_for_the_next_one(world):
    """It is data: nothing forgets it."""
    worker = world.start()
    world.feeder().send(3 * ROLLOUT)
    world.reaches(4)
    assert worker.stop() == 0
    request_rollback(world.broker, world.keys, 2, CAUSE)
    assert read_control(world.broker, world.keys).request is not None
    world.start()
    world.reaches(5)
    assert what(world) == ["rollback requested", "rolled back"]
    request_rollback(world.broker, world.keys, 1, CAUSE)
    world.reaches(6)


def test_a_request_can_be_withdrawn_or_replaced_until_it_is_carried_out(world):
    """The last one counts."""
    worker = world.start()
    world.feeder().send(3 * ROLLOUT)
    world.reaches(4)
    assert worker.stop() == 0
    request_rollback(world.broker, world.keys, 3, CAUSE)
    assert withdraw_rollback(world.broker, world.keys, "", CAUSE)
    assert not withdraw_rollback(world.broker, world.keys, "", CAUSE)
    request_rollback(world.broker, world.keys, 3, CAUSE)
    request_rollback(world.broker, world.keys, 2, CAUSE)
    world.start()
    world.reaches(5)
    subscriber = ModelSubscriber(world.broker, world.keys)
    assert subscriber.read(5).weights.flat.tobytes() == subscriber.read(2).weights.flat.tobytes()
    worker.stop()
    assert what(world)[-2:] == ["rollback requested", "rolled back"]


def test_a_version_without_checkpoint_is_refused_with_those_that_have_one(world):
    """Before anybody waits for it; and a version that there is not likewise."""
    world.define(retain_versions=2)
    world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    pin(world.broker, world.keys, 2, ALL, CAUSE)
    feeder.send(8 * ROLLOUT)
    world.reaches(10)
    eventually(lambda: ttl(world, world.keys.checkpoint(1, world.head().token)) != -1)
    with pytest.raises(UnknownVersionError, match=r"can be rolled back to: 2, .*10$"):
        request_rollback(world.broker, world.keys, 1, CAUSE)
    with pytest.raises(UnknownVersionError, match="no version 99; retained versions: 1…2, "):
        request_rollback(world.broker, world.keys, 99, CAUSE)


def test_a_rollback_that_cannot_be_carried_out_is_refused_in_the_log(world):
    """The checkpoint was damaged: the worker says so, and trains on."""
    world.start()
    feeder = world.feeder()
    feeder.send(2 * ROLLOUT)
    head = world.reaches(3)
    world.broker.hash_set(world.keys.checkpoint(2, head.token), {"chunk0": b"nothing"})
    request_rollback(world.broker, world.keys, 2, CAUSE)
    eventually(lambda: what(world)[-1] == "rollback refused", 10)
    assert "does not match its digest" in read_control_log(world.broker, world.keys)[-1].reason
    assert read_control(world.broker, world.keys).request is None
    feeder.send(ROLLOUT)
    world.reaches(4)
    world.check_exactly_once()


def test_a_rollback_moves_the_promotion_along(world):
    """Whoever rolls back wants agents to act by that."""
    world.start()
    world.feeder().send(3 * ROLLOUT)
    world.reaches(4)
    promote(world.broker, world.keys, 4, CAUSE)
    request_rollback(world.broker, world.keys, 2, CAUSE)
    head = world.reaches(5)
    promoted = read_control(world.broker, world.keys).promoted
    assert promoted is not None
    assert (promoted.version, promoted.token) == (5, head.token)


def beat(world: World, agent_id: str = "held") -> None:
    """A running agent's report."""
    now_ms = SystemClock().wall_ms()
    write_heartbeat(world.broker, world.keys, AgentHeartbeat(agent_id=agent_id, time_ms=now_ms))


def state(world: World) -> tuple[str, str]:
    """What the worker says that it does, and why."""
    report = read_worker_report(world.broker, world.keys)
    return (report.state, report.detail) if report else ("", "")


def acted_by(version: int, token: str) -> Callable[[int], Trajectory]:
    """Makes trajectories of one model."""
    return lambda seq: trajectory(STEPS, seed=seq, behavior=((version, token),))


def test_while_all_agents_are_held_the_learner_pauses_at_its_lag_limit(world):
    """Nothing is dropped: what comes in stays pending, and the status says why."""
    world.define(max_policy_lag=3)
    world.start()
    feeder = world.feeder("held")
    head = world.reaches(1)
    pin(world.broker, world.keys, 1, ALL, CAUSE)
    now_ms = SystemClock().wall_ms()

    def send(count: int) -> None:
        feeder.send(count, acted_by(1, head.token))
        feeder.beat(time_ms=now_ms)

    for version in (2, 3, 4):
        send(ROLLOUT)
        world.reaches(version)
    send(ROLLOUT)
    eventually(lambda: state(world)[0] == "paused", 10, "the learner is paused")
    assert "held at version 1" in state(world)[1]
    assert "max_policy_lag = 3" in state(world)[1]
    assert world.version() == 4
    assert world.broker.call("XLEN", world.keys.traj) == ROLLOUT
    unpin(world.broker, world.keys, "", CAUSE)
    eventually(lambda: state(world)[0] != "paused", 10)
    counts = world.reaches(5).counts
    assert (counts.trained, counts.dropped) == (4 * ROLLOUT, 0)


def test_agents_that_follow_the_head_keep_the_learner_going(world):
    """What a held one sends gets too old then, and is dropped as ever."""
    world.define(max_policy_lag=2)
    world.start()
    feeder = world.feeder("free")
    head = world.reaches(1)
    pin(world.broker, world.keys, 1, Selection("held"), CAUSE)
    beat(world)
    for version in range(1, 6):
        feeder.send(ROLLOUT, acted_by(version, head.token))
        feeder.beat(time_ms=SystemClock().wall_ms())
        world.reaches(version + 1)


def test_stopped_agents_are_not_waited_for(world):
    """Nobody trains on what they send."""
    world.define(max_policy_lag=2)
    world.start()
    feeder = world.feeder("stopped")
    head = world.reaches(1)
    stop(world.broker, world.keys, ALL, CAUSE)
    for version in range(1, 5):
        feeder.send(ROLLOUT, acted_by(version, head.token))
        feeder.beat(time_ms=SystemClock().wall_ms())
        world.reaches(version + 1)


def test_the_gate_promotes_what_is_not_worse(world):
    """First whatever has enough episodes; then only what comes near the incumbent."""
    world.define(promotion_margin=1.0, promotion_min_episodes=ROLLOUT)
    world.start()
    feeder = world.feeder()
    head = world.reaches(1)

    def returned(version: int, reward: float) -> Callable[[int], Trajectory]:
        return lambda seq: trajectory(
            STEPS, seed=seq, reward=reward, episode=seq, behavior=((version, head.token),)
        )

    def promoted() -> int:
        found = read_control(world.broker, world.keys).promoted
        return found.version if found else 0

    feeder.send(ROLLOUT, returned(1, 1.0))
    eventually(lambda: promoted() == 1, 10, "the first version is promoted")
    world.reaches(2)
    feeder.send(ROLLOUT, returned(2, 0.5))
    world.reaches(3)
    feeder.send(ROLLOUT, returned(3, 1.0))
    eventually(lambda: promoted() == 3, 10, "the third version is promoted")
    record = read_control_log(world.broker, world.keys)[-1]
    assert record.what == "promote"
    assert record.by.startswith("worker@")
    assert record.reason == "mean return 8 over 4 episodes; version 1: 8 over 4"
    assert [one.version for one in read_control_log(world.broker, world.keys)] == [1, 3]


def test_a_reset_ends_what_named_versions_and_leaves_agents_stopped(world):
    """The versions are gone; the danger may not be."""
    world.start()
    world.reaches(1)
    pin(world.broker, world.keys, 1, ALL, CAUSE)
    rule = stop(world.broker, world.keys, Selection("sick-*"), CAUSE)
    promote(world.broker, world.keys, 1, CAUSE)
    reset_client(world.broker, world.keys, CAUSE)
    control = read_control(world.broker, world.keys)
    assert (control.rules, control.promoted, control.request) == ((rule,), None, None)
    assert what(world)[-1] == "reset"
