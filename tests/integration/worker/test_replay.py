"""What a replay buffer holds stays in the stream, is settled all the same, and comes back."""

import signal

import pytest

from rl4sys_stream.broker.admin import reset_client
from rl4sys_stream.broker.keys import GROUP
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.testing import eventually
from tests.integration.worker.world import LEARNERS, ROLLOUT, STEPS, World
from tests.unit.worker.entries import trajectory

pytestmark = pytest.mark.integration

BUFFER = 4 * ROLLOUT
"""Trajectories of the ordinary length that the buffer of `World` has room for."""


@pytest.fixture
def dqn(world: World) -> World:
    """A client whose learner has a replay buffer."""
    world.define(algorithm="DQN")
    return world


def entries(world: World) -> int:
    """In the stream."""
    return int(world.broker.call("XLEN", world.keys.traj))


def trained(world: World) -> int:
    """By the head's counts."""
    head = world.head()
    return head.counts.trained if head else 0


def retains(world: World, count: int) -> None:
    """Wait until head and stream agree that so many entries stay."""

    def agrees() -> bool:
        head = world.head()
        return head is not None and head.retained == count == entries(world)

    eventually(agrees, 20, f"{count} entries are retained")


def test_the_newest_trajectories_stay_in_the_stream_and_no_others(dqn: World) -> None:
    """As many as the buffer has room for; each is trained by one commit, and none is pending."""
    dqn.start()
    feeder = dqn.feeder()
    feeder.send(ROLLOUT)
    dqn.reaches(2)
    retains(dqn, ROLLOUT)
    feeder.send(6 * ROLLOUT)
    dqn.reaches(8)
    retains(dqn, BUFFER)
    stream = TrajectoryStream(dqn.broker, dqn.keys)
    kept = [int(entry.fields[b"seq"]) for entry in stream.settled(page=3)]
    assert kept == feeder.sent[-BUFFER:]
    backlog = stream.backlog()
    assert (backlog.pending, backlog.unsettled(BUFFER), backlog.oldest_ms) == (0, 0, None)
    dqn.check_exactly_once()


def test_the_oldest_unsettled_entry_is_told_apart_from_retained_ones(dqn: World) -> None:
    """Or a client with a replay buffer would look hours behind."""
    worker = dqn.start()
    feeder = dqn.feeder()
    feeder.send(ROLLOUT)
    dqn.reaches(2)
    retains(dqn, ROLLOUT)
    worker.stop()
    feeder.send(1)
    last = dqn.broker.call("XREVRANGE", dqn.keys.traj, "+", "-", "COUNT", 1)
    newest = next(iter(last))[0].decode()
    backlog = TrajectoryStream(dqn.broker, dqn.keys).backlog()
    assert backlog.unsettled(ROLLOUT) == 1
    assert backlog.oldest_ms == int(newest.partition("-")[0])


@pytest.mark.parametrize("parameters", [{}, {"double_q": True, "dueling": True, "n_step": 3}])
def test_a_worker_that_was_killed_goes_on_with_the_buffer_that_it_had(
    make_world, redis_url: str, client_name: str, parameters: dict[str, object]
) -> None:
    """Bit for bit as one that was never killed, by every version's weights and checkpoint."""
    undisturbed, killed = (make_world(redis_url, f"{client_name}_{name}") for name in "ab")
    for world in (undisturbed, killed):
        world.define(algorithm="DQN", parameters=parameters)
    undisturbed.start()
    undisturbed.feeder().send(9 * ROLLOUT)
    undisturbed.reaches(10)
    feeder = killed.feeder()
    for version in (3, 7):
        worker = killed.start()
        feeder.send((version - 1) * ROLLOUT - len(feeder.sent))
        killed.reaches(version)
        worker.signal(signal.SIGKILL)
        worker.wait()
    killed.start()
    feeder.send(9 * ROLLOUT - len(feeder.sent))
    killed.reaches(10)
    assert killed.digests() == undisturbed.digests()
    killed.check_exactly_once()


def test_a_reset_begins_with_an_empty_buffer_and_an_empty_stream(dqn: World) -> None:
    """What another training history has kept is no longer of use to anybody."""
    worker = dqn.start()
    dqn.feeder().send(3 * ROLLOUT)
    dqn.reaches(4)
    retains(dqn, 3 * ROLLOUT)
    worker.stop()
    reset_client(dqn.broker, dqn.keys)
    dqn.start()
    dqn.reaches(1)
    retains(dqn, 0)


def test_no_restart_brings_back_what_the_time_before_a_reset_has_kept(
    dqn: World,
) -> None:
    """While the first commits still delete it, it must not get into the new history's buffer."""
    dqn.define(algorithm="DQN", max_commit_entries=ROLLOUT)
    worker = dqn.start()
    feeder = dqn.feeder()
    feeder.send(BUFFER)
    dqn.reaches(5)
    retains(dqn, BUFFER)
    worker.stop()
    reset_client(dqn.broker, dqn.keys)
    worker = dqn.start()
    dqn.reaches(1)
    worker.stop()
    assert entries(dqn) == BUFFER - ROLLOUT
    dqn.start()
    feeder.send(ROLLOUT)
    dqn.reaches(2)
    assert read_metrics(dqn.broker, dqn.keys, count=1)[-1].metrics["replay/size"] == ROLLOUT * STEPS


def test_retained_entries_that_are_above_a_new_limit_leave_the_stream(dqn: World) -> None:
    """Nobody can use them any more, and agents would count them as unsettled for ever."""
    roomy: dict[str, object] = {"buffer_size": 10_000}
    dqn.define(algorithm="DQN", parameters=roomy)
    worker = dqn.start()
    feeder = dqn.feeder()
    feeder.send(2, lambda seq: trajectory(300, seed=seq))
    eventually(lambda: trained(dqn) == 2, 20, "the long ones are taken in")
    worker.stop()
    dqn.define(algorithm="DQN", parameters=roomy, max_entry_steps=256)
    dqn.start()
    feeder.send(ROLLOUT)
    eventually(lambda: trained(dqn) == 2 + ROLLOUT, 20, "the short ones are taken in")
    retains(dqn, ROLLOUT)


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_entries_that_somebody_acknowledged_are_trained_on_all_the_same(
    world: World, algorithm: str
) -> None:
    """No commit settled them: nobody would ever read them, and agents would wait for it."""
    world.define(algorithm=algorithm)
    worker = world.start()
    feeder = world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    worker.stop()
    feeder.send(ROLLOUT)
    world.broker.call("XREADGROUP", "GROUP", GROUP, "somebody", "STREAMS", world.keys.traj, ">")
    stream = TrajectoryStream(world.broker, world.keys)
    ids = [entry.entry_id for entry in stream.addresses()]
    world.broker.call("XACK", world.keys.traj, GROUP, *ids)
    world.start()
    world.reaches(3)
    retains(world, 2 * ROLLOUT if algorithm == "DQN" else 0)
    world.check_exactly_once()


def test_a_tail_that_somebody_has_shortened_is_taken_as_it_is(dqn: World) -> None:
    """The worker says so, and goes on with a smaller buffer."""
    worker = dqn.start()
    feeder = dqn.feeder()
    feeder.send(3 * ROLLOUT)
    dqn.reaches(4)
    retains(dqn, 3 * ROLLOUT)
    worker.stop()
    dqn.broker.call("XTRIM", dqn.keys.traj, "MAXLEN", ROLLOUT)
    heir = dqn.start()
    heir.says(f"trajectories={ROLLOUT} retained={3 * ROLLOUT}")
    feeder.send(ROLLOUT)
    dqn.reaches(5)
    retains(dqn, 2 * ROLLOUT)
    dqn.check_exactly_once()


def test_a_group_that_was_deleted_makes_no_entry_count_twice(dqn: World) -> None:
    """Delivered again, the retained entries are second copies: the buffer begins anew."""
    worker = dqn.start()
    feeder = dqn.feeder()
    feeder.send(3 * ROLLOUT)
    dqn.reaches(4)
    retains(dqn, 3 * ROLLOUT)
    worker.stop()
    dqn.broker.call("XGROUP", "DESTROY", dqn.keys.traj, GROUP)
    dqn.start()
    feeder.send(ROLLOUT)
    dqn.reaches(5)
    retains(dqn, ROLLOUT)
    dqn.check_exactly_once()


def test_what_stays_in_the_stream_is_bounded_in_bytes(world: World) -> None:
    """Of one-step episodes the overhead is larger than what they hold."""
    limit = 1 << 20
    world.define(
        algorithm="DQN",
        parameters={
            "buffer_size": 10_000,
            "update_steps": 500,
            "learning_starts": 10_000,
            "total_timesteps": 20_000,
        },
        retained_bytes=limit,
    )
    worker = world.start()
    feeder = world.feeder()
    for _ in range(8):
        feeder.send(1000, lambda seq: trajectory(1, seed=seq))
    eventually(lambda: trained(world) == 8000, 30, "all are taken in")
    worker.says("worker.retained")
    memory = int(world.broker.call("MEMORY", "USAGE", world.keys.traj, "SAMPLES", 0))
    assert 0 < entries(world) < 8000
    assert memory < 1.5 * limit
    world.check_exactly_once()


def test_every_learner_of_the_tests_fits_its_algorithm() -> None:
    """One update takes a rollout, whichever it is."""
    assert LEARNERS["DQN"]["update_steps"] == LEARNERS["PPO"]["n_steps"] == STEPS * ROLLOUT
