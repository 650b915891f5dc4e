"""Workers that die or hang at any moment: nothing lost, nothing trained twice, one history."""

import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.testing import eventually
from tests.integration.worker.world import ROLLOUT, STEPS, World
from tests.unit.worker.entries import trajectory

pytestmark = pytest.mark.fault


def test_a_dozen_kills_lose_nothing_and_train_nothing_twice(world):
    """By kill -9 at random moments, while two agents send; versions go up by one, one lineage."""
    rng = np.random.default_rng(11)
    feeders = [world.feeder("a"), world.feeder("b")]
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            for feeder in feeders:
                feeder.send(int(rng.integers(1, 4)))
            stop.wait(0.03)

    world.define(lease_s=0.31, lease_renew_s=0.1)
    thread = threading.Thread(target=feed)
    thread.start()
    lineages = set()
    try:
        for _ in range(12):
            before = world.version()
            worker = world.start()
            world.reaches(before + 1)
            # From the middle of reading to the middle of the fifth update or so.
            stop.wait(float(rng.uniform(0, 0.06)))
            worker.kill()
            head = world.head()
            assert head is not None
            lineages.add(head.lineage)
    finally:
        stop.set()
        thread.join()
    world.start()
    world.settles(60)
    sent = sum(len(feeder.sent) for feeder in feeders)
    assert sent > 12 * ROLLOUT
    world.check_exactly_once(pending=sent % ROLLOUT)
    assert len(lineages) == 1


def test_training_resumes_exactly(make_world, redis_url, client_name):
    """Same data, with and without kills in between: bit-identical weights and optimizer, always."""
    undisturbed = make_world(redis_url, f"{client_name}_a")
    killed = make_world(redis_url, f"{client_name}_b")
    # Alone the seed decides about the first weights; the lineages differ.
    parameters = {"normalize_observations": True, "n_epochs": 4}
    for world in (undisturbed, killed):
        world.define(parameters=parameters, lease_s=0.31, lease_renew_s=0.1)
    last, portions = 41, 10
    undisturbed.feeder().send((last - 1) * ROLLOUT)
    undisturbed.start()
    undisturbed.reaches(last)
    rng = np.random.default_rng(5)
    feeder = killed.feeder()
    for portion in range(portions):
        feeder.send((last - 1) * ROLLOUT // portions)
        worker = killed.start()
        killed.reaches(1 + int((last - 1) * portion / portions) + int(rng.integers(1, 4)))
        threading.Event().wait(float(rng.uniform(0, 0.03)))
        worker.kill()
    killed.start()
    killed.reaches(last)
    one, other = undisturbed.digests(), killed.digests()
    assert len(one) == len(other) == last
    assert one == other
    assert len(set(one)) == last
    tokens = {entry.token for entry in killed.head().manifest}
    assert len(tokens) >= portions


def test_a_zombie_is_fenced(world):
    """Stopped beyond its lease in the middle of its work; another takes over; it wakes up."""
    rng = np.random.default_rng(2)
    feeder = world.feeder()
    zombie, heir = world.start(), None
    world.reaches(1)
    for _ in range(3):
        feeder.send(5 * ROLLOUT)
        threading.Event().wait(float(rng.uniform(0.0, 0.05)))
        zombie.signal(signal.SIGSTOP)
        heir = heir or world.start()
        feeder.send(5 * ROLLOUT)
        before = world.head()
        target = len(feeder.sent) // ROLLOUT + 1
        head = world.reaches(target)
        assert before is not None
        assert head.token != before.token or before.version == target
        zombie.signal(signal.SIGCONT)
        # It may take entries under the shared name before it notices; they are found again.
        feeder.send(2 * ROLLOUT)
        world.reaches(target + 2)
        zombie.says("held_by_another")
        zombie, heir = heir, zombie
    world.settles()
    assert all(worker.poll() is None for worker in world.workers)
    world.check_exactly_once()


def test_a_worker_that_hangs_shorter_than_its_lease_goes_on(world):
    """Nobody else had a reason to take over."""
    world.define(lease_s=30.0, lease_renew_s=0.1)
    worker = world.start()
    feeder = world.feeder()
    head = world.reaches(1)
    worker.signal(signal.SIGSTOP)
    feeder.send(3 * ROLLOUT)
    worker.signal(signal.SIGCONT)
    assert world.reaches(4).token == head.token
    world.check_exactly_once()


def test_entries_of_a_dead_worker_are_trained_by_the_next(world):
    """It died with a part of a rollout in hand, on a stream on which nothing more arrives."""
    feeder = world.feeder()
    worker = world.start()
    world.reaches(1)
    feeder.send(ROLLOUT - 1)
    eventually(lambda: world.broker.call("XPENDING", world.keys.traj, "workers")["pending"] == 3)
    worker.kill()
    feeder.send(1)
    world.start()
    world.reaches(2)
    world.check_exactly_once()


def test_what_a_dead_worker_staged_expires(world):
    """Nothing that was not committed stays in the broker."""
    world.define(lease_s=0.31, lease_renew_s=0.1, stage_ttl_s=1.0)
    feeder = world.feeder()
    for _ in range(4):
        before = world.version()
        worker = world.start()
        feeder.send(40 * ROLLOUT)
        world.reaches(before + 2)
        worker.kill()
    head = world.head()
    kept = {world.keys.model(e.version, e.token) for e in head.manifest}
    kept |= {world.keys.checkpoint(e.version, e.token) for e in head.manifest}

    def staged() -> set[str]:
        found = {key for kind in ("model", "checkpoint") for key in scan(world, kind)}
        return found - kept

    eventually(lambda: not staged(), 10)
    assert kept == {key for kind in ("model", "checkpoint") for key in scan(world, kind)}


def scan(world: World, kind: str) -> Iterator[str]:
    """Keys of one kind."""
    return world.broker.scan(world.keys.pattern.replace("*", f"{kind}:*"))


def test_a_third_partys_loss_is_counted_and_training_goes_on(world):
    """Entries deleted from the stream before and after they were delivered."""
    world.define(read_entries=4)
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    ids = [row[0] for row in world.broker.redis.xrange(world.keys.traj)]
    world.broker.call("XDEL", world.keys.traj, ids[1])
    world.start()
    world.reaches(1)
    eventually(lambda: world.broker.call("XPENDING", world.keys.traj, "workers")["pending"] == 3)
    world.workers[-1].kill()
    world.broker.call("XDEL", world.keys.traj, ids[2])
    world.start()
    feeder.send(2 * ROLLOUT - 2)
    world.reaches(3)
    world.settles()
    report = audit_client(world.broker, world.keys)
    assert report.closes, report
    assert (report.total("skipped"), report.total("trained")) == (2, 2 * ROLLOUT)
    assert set(world.taken().values()) == {1}


def test_a_killed_workers_lease_is_the_only_delay(world):
    """The next one waits for it to expire, and for nothing else."""
    world.define(lease_s=0.31, lease_renew_s=0.1)
    worker = world.start()
    world.reaches(1)
    worker.kill()
    feeder = world.feeder()
    feeder.send(ROLLOUT, lambda seq: trajectory(STEPS, seed=seq))
    world.start()
    world.reaches(2, timeout_s=5)
    assert read_lease(world.broker, world.keys).ttl_ms <= 310
