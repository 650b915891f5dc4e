"""The worker as a user starts it: a process, a definition, a broker."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from rl4sys_stream.broker.admin import delete_client, reset_client
from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.broker.registry import (
    list_clients,
    read_registration,
    read_worker_report,
)
from rl4sys_stream.errors import UnknownClientError, UsageError
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.testing import eventually
from tests.integration.worker.world import ROLLOUT, ROOT, STEPS
from tests.unit.worker.entries import entry_fields, trajectory

pytestmark = pytest.mark.integration


def test_the_command_registers_trains_and_ends_as_asked(world):
    """`python -m rl4sys_stream worker --client C --config F`, SIGTERM, exit code 0."""
    world.define()
    command = ["-m", "rl4sys_stream", "worker", "--client", world.client]
    process = subprocess.Popen(
        [sys.executable, *command, "--config", str(world.config)],
        cwd=ROOT,
        env={**os.environ, "RL4SYS_STREAM_REDIS_URL": world.url, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        world.reaches(1)
        assert world.client in list_clients(world.broker)
        registration = read_registration(world.broker, world.keys)
        assert registration is not None
        feeder = world.feeder()
        feeder.send(2 * ROLLOUT)
        world.reaches(3)
        process.terminate()
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    password = world.url.split("@")[0].rpartition(":")[2]
    assert password not in log
    assert "worker.committed" in log
    assert f"worker.stopped client={world.client}" in log.splitlines()[-1]
    world.check_exactly_once()


def test_the_first_version_is_published_before_any_trajectory(world):
    """Agents need something to act with; the seed decides what."""
    world.start()
    head = world.reaches(1)
    model = ModelSubscriber(world.broker, world.keys).refresh(None)
    assert model is not None
    assert (model.version, model.token, model.lineage) == (1, head.token, head.lineage)
    assert np.isfinite(model.weights.flat).all()
    assert head.counts.trained == 0
    assert world.taken() == {}


def test_versions_rise_with_the_data_and_say_what_they_learned_from(world):
    """Provenance, metrics, counts and checkpoint beside each."""
    world.start()
    feeder = world.feeder()
    feeder.send(3 * ROLLOUT)
    head = world.reaches(4)
    world.check_exactly_once()
    assert head.counts.steps == 3 * ROLLOUT * STEPS
    assert head.counts.episodes == 3 * ROLLOUT
    records = read_metrics(world.broker, world.keys)
    assert records[-1].metrics["time/total_timesteps"] == 3 * ROLLOUT * STEPS
    assert records[-1].metrics["rollout/ep_len_mean"] == STEPS
    assert records[-1].metrics["policy/lag_max"] == 3
    assert "train/approx_kl" in records[-1].metrics
    assert world.broker.call("TTL", head.checkpoint) == -1


def test_what_cannot_be_used_is_quarantined_and_training_goes_on(world):
    """Garbage, a foreign shape, an impossible action, and an entry beyond the limit."""
    world.define(max_entry_bytes=20_000)
    world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)

    def oversized(seq):
        return trajectory(2_000, seed=seq)

    big = feeder.send(1, oversized)
    fields = dict(entry_fields("agent", len(feeder.sent) + 1))
    feeder.sent.append(len(feeder.sent) + 1)
    feeder.append([tuple({**fields, b"h": b"{"}.items())])
    feeder.append([((b"nobody", b"knows"),)])
    feeder.append([tuple((b"f%d" % n, b"v") for n in range(9000))])
    feeder.floor = len(feeder.sent) + 1
    feeder.send(ROLLOUT)
    world.reaches(3)
    eventually(lambda: world.head().counts.quarantined == 4)
    world.settles()
    rows = world.broker.redis.xrange(world.keys.quarantine)
    reasons = [fields[b"reason"].decode() for _, fields in rows]
    assert len(reasons) == 4
    assert sum("WireLimitError" in reason for reason in reasons) == 1
    assert sum("does not parse" in reason for reason in reasons) == 1
    assert sum("agent_id" in reason for reason in reasons) == 2
    taken = world.taken()
    assert len(taken) == 2 * ROLLOUT
    assert ("agent", big[0]) not in taken
    report = audit_client(world.broker, world.keys)
    assert report.closes, report
    assert (report.total("quarantined"), report.anonymous) == (2, 2)


def test_duplicates_are_trained_once(world):
    """Sent again before and after they were settled, and both in one batch."""
    world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    again = [
        entry_fields("agent", seq, trajectory(STEPS, seed=seq)) for seq in range(1, ROLLOUT + 1)
    ]
    feeder.append(again)
    feeder.send(ROLLOUT - 1)
    feeder.append([*again, entry_fields("agent", 5, trajectory(STEPS, seed=5))])
    feeder.send(1)
    world.reaches(3)
    world.settles()
    eventually(lambda: audit_client(world.broker, world.keys).total("duplicates") == 9)
    world.check_exactly_once()


def test_a_stop_leaves_nothing_half_done(world):
    """The lease is free at once, the rest of a rollout is pending, the report says stopped."""
    worker = world.start()
    feeder = world.feeder()
    feeder.send(2 * ROLLOUT + 3)
    world.reaches(3)
    assert worker.stop() == 0
    assert read_lease(world.broker, world.keys).holder == ""
    report = read_worker_report(world.broker, world.keys)
    assert report is not None
    assert report.state == "stopped"
    world.check_exactly_once(pending=3)
    world.start()
    feeder.send(1)
    world.reaches(4)
    world.check_exactly_once()


def test_a_stop_commits_what_was_refused(world):
    """Its fate is known; the next worker need not find it out again."""
    worker = world.start()
    world.reaches(1)
    feeder = world.feeder()
    fields = dict(entry_fields("agent", 1))
    feeder.sent.append(1)
    feeder.append([tuple({**fields, b"h": b"{"}.items())])
    worker.says("worker.quarantined")
    assert worker.stop() == 0
    assert audit_client(world.broker, world.keys).total("quarantined") == 1


def test_a_second_worker_waits_and_takes_over(world):
    """Two for one client: one trains; when it is stopped, the other continues the lineage."""
    first = world.start()
    head = world.reaches(1)
    second = world.start()
    second.says("worker.lease.held_by_another")
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    assert world.reaches(2).token == head.token
    assert first.stop() == 0
    feeder.send(ROLLOUT)
    later = world.reaches(3)
    assert later.token != head.token
    assert later.lineage == head.lineage
    assert second.poll() is None
    second.says("worker.lease.taken")
    world.check_exactly_once()


def test_a_worker_without_definition_waits_for_the_registration(world):
    """And takes its parameters from it."""
    worker = world.start(config=False)
    worker.says("worker.client.not_registered")
    assert world.version() == 0
    world.define()
    world.register()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    worker.says("worker.client.registered")
    world.check_exactly_once()


def test_a_definition_that_contradicts_the_registration_is_refused(world):
    """Exit code 78; the fields are named, nothing was changed."""
    world.start()
    head = world.reaches(1)
    world.workers[-1].stop()
    text = world.config.read_text(encoding="utf-8")
    world.config.write_text(text.replace('"n": 2', '"n": 3'), encoding="utf-8")
    worker = world.start()
    assert worker.wait() == 78
    assert "action_space" in worker.log
    assert world.head() == head
    report = read_worker_report(world.broker, world.keys)
    assert report is not None
    assert report.state == "failed"


def test_training_that_is_not_finite_is_rolled_back_reported_and_stopped(world):
    """Rewards of 3e38: three rollouts go to the quarantine, then exit code 71; nothing is out.

    The next worker goes on from the same weights.
    """
    worker = world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    head = world.reaches(2)
    feeder.send(3 * ROLLOUT, lambda seq: trajectory(STEPS, seed=seq, reward=3e38))
    assert worker.wait() == 71
    assert world.version() == 2
    rows = world.broker.redis.xrange(world.keys.quarantine)
    assert len(rows) == 3 * ROLLOUT
    assert all(b"not finite" in fields[b"reason"] for _, fields in rows)
    report = read_worker_report(world.broker, world.keys)
    assert report is not None
    assert "NonFiniteError" in report.detail
    assert read_lease(world.broker, world.keys).holder == ""
    world.start()
    feeder.send(ROLLOUT)
    later = world.reaches(3)
    assert later.lineage == head.lineage
    model = ModelSubscriber(world.broker, world.keys).refresh(None)
    assert model is not None
    assert np.isfinite(model.weights.flat).all()
    audit = audit_client(world.broker, world.keys)
    assert audit.closes
    assert (audit.total("trained"), audit.total("quarantined")) == (2 * ROLLOUT, 3 * ROLLOUT)


def test_one_bad_rollout_does_not_stop_a_worker(world):
    """Failures in a row count, not failures."""
    worker = world.start()
    feeder = world.feeder()
    for _ in range(3):
        feeder.send(2 * ROLLOUT, lambda seq: trajectory(STEPS, seed=seq, reward=3e38))
        feeder.send(ROLLOUT)
    world.reaches(4)
    assert worker.poll() is None
    assert audit_client(world.broker, world.keys).closes


def test_rollouts_of_tiny_trajectories_still_fit_into_a_commit(world):
    """The limit of entries comes before the steps of a rollout."""
    world.define(parameters={"n_steps": 5000}, max_commit_entries=20)
    world.start()
    feeder = world.feeder()
    feeder.send(100, lambda seq: trajectory(1, seed=seq))
    head = world.reaches(6)
    assert head.counts.trained == 100
    world.check_exactly_once()


def test_trajectories_beyond_the_lag_limit_are_dropped_and_counted(world):
    """They are settled without a version, on their own."""
    world.define(max_policy_lag=1)
    world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    feeder.send(ROLLOUT)
    world.settles()
    eventually(lambda: audit_client(world.broker, world.keys).total("dropped") == ROLLOUT)
    report = audit_client(world.broker, world.keys)
    assert report.closes
    assert world.version() == 2
    assert world.broker.call("XLEN", world.keys.quarantine) == 0


def test_a_reset_under_a_running_worker_begins_a_new_lineage(world):
    """Version 1 again; the old lineage's trajectories are dropped, none is trained twice."""
    worker = world.start()
    feeder = world.feeder()
    feeder.send(2 * ROLLOUT)
    old = world.reaches(3)
    before = world.taken()
    lineage = reset_client(world.broker, world.keys)
    assert lineage != old.lineage
    eventually(lambda: (head := world.head()) is not None and head.lineage == lineage, 20)
    assert world.version() == 1
    acted = [(old.version, old.token)]
    feeder.send(ROLLOUT, lambda seq: trajectory(STEPS, seed=seq, behavior=acted))
    # What was settled before the reset is settled still.
    feeder.append([entry_fields("agent", seq, trajectory(STEPS, seed=seq)) for seq in (1, 2)])
    new = world.head()
    assert new is not None
    acted = [(1, new.token)]
    fresh = feeder.send(ROLLOUT, lambda seq: trajectory(STEPS, seed=seq, behavior=acted))
    world.reaches(2)
    world.settles()
    after = world.taken()
    assert set(after) == {("agent", seq) for seq in fresh}
    assert not set(before) & set(after)
    report = audit_client(world.broker, world.keys)
    assert report.closes, report
    assert (report.total("trained"), report.total("dropped")) == (3 * ROLLOUT, ROLLOUT)
    assert report.total("duplicates") == 2
    assert worker.poll() is None
    left = [key for key in world.broker.scan(world.keys.pattern) if old.token in key]
    assert left == []


def test_a_client_with_running_agents_is_not_deleted(world):
    """Unless it is forced; agents that said goodbye, or nothing for long, do not count."""
    world.start()
    world.reaches(1)
    feeder = world.feeder()
    feeder.beat(time_ms=100_000)
    with pytest.raises(UsageError, match="agent"):
        delete_client(world.broker, world.keys, force=False, wall_ms=101_000)
    assert world.client in list_clients(world.broker)
    feeder.beat(time_ms=100_000, closed=True)
    world.workers[-1].stop()
    assert delete_client(world.broker, world.keys, force=False, wall_ms=101_000) > 5
    assert list(world.broker.scan(world.keys.pattern)) == []
    with pytest.raises(UnknownClientError):
        delete_client(world.broker, world.keys, force=True, wall_ms=101_000)


@pytest.mark.parametrize("config", [True, False], ids=["own definition", "registered one"])
def test_a_deleted_client_does_not_come_back_through_its_worker(world, config):
    """Nor through one that was waiting for the lease; an agent may bring it back."""
    world.define()
    world.register()
    worker = world.start(config=config)
    world.reaches(1)
    waiting = world.start(config=config)
    waiting.says("worker.lease.held_by_another")
    # Both have seen the registration: one holds the lease, one is about to get it.
    delete_client(world.broker, world.keys, force=True, wall_ms=1)
    for one in (worker, waiting):
        one.says("worker.client.not_registered")
        assert one.poll() is None
    assert world.version() == 0
    assert list(world.broker.scan(world.keys.pattern.replace("*", "model*"))) == []
    assert world.client not in list_clients(world.broker)
    world.register()
    world.reaches(1)


def test_a_rollout_that_agents_hold_back_from_is_trained_on_short(world):
    """Above their high-water mark they wait for the worker, which waits for a rollout."""
    world.start()
    world.reaches(1)
    feeder = world.feeder()
    feeder.send(ROLLOUT - 1)
    feeder.beat(broker="paused", time_ms=time.time_ns() // 1_000_000)
    world.reaches(2)
    assert world.head().counts.trained == ROLLOUT - 1
    feeder.beat()
    feeder.send(1)
    feeder.send(ROLLOUT - 1)
    world.reaches(3)
    world.check_exactly_once()
