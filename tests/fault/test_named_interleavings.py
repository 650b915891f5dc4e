"""Interleavings with a name: each was, in some system, how a trajectory got lost or trained twice.

The reply that is lost with its application is in `test_spool`.
"""

import shutil
import signal
import threading

import pytest

from rl4sys_stream.broker.admin import delete_client, reset_client
from rl4sys_stream.broker.ledger import read_ledgers
from rl4sys_stream.config import load_config
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.spaces import flatten
from rl4sys_stream.testing import RedisServer, eventually
from tests.fault.forwarder import Forwarder
from tests.fault.team import Team
from tests.integration.agent.world import OBS
from tests.integration.worker.world import ROLLOUT, World

pytestmark = pytest.mark.fault


def test_a_zombie_that_resumes_in_the_middle_of_its_stage_leaves_nothing(world):
    """Its commit is refused, its staged keys expire, and nothing of it can be read as a version.

    Stopped when its checkpoint was staged and its model was not; meanwhile an heir commits the
    same version.
    """
    world.define(stage_ttl_s=1.5)
    with Forwarder(world.url) as way:
        zombie = world.start(url=way.url)
        token = world.reaches(1).token
        stopped = threading.Event()

        def stop() -> None:
            zombie.signal(signal.SIGSTOP)
            stopped.set()

        way.when(":checkpoint:2:", stop)
        feeder = world.feeder()
        feeder.send(ROLLOUT)
        assert stopped.wait(10)
        heir = world.start()
        head = world.reaches(2)
        assert head.token != token
        zombie.signal(signal.SIGCONT)
        zombie.says("reason=FENCED")
        staged = {world.keys.model(2, token), world.keys.checkpoint(2, token)}
        eventually(lambda: not staged & set(world.broker.scan(world.keys.pattern)))
        feeder.send(ROLLOUT)
        world.reaches(3)
        model = ModelSubscriber(world.broker, world.keys).read(2)
        assert model.token == head.token
        world.check_exactly_once()
        assert (zombie.poll(), heir.poll()) == (None, None)


def test_the_last_entries_of_an_idle_stream_do_not_die_with_their_worker(world):
    """It is killed between its update and its commit, and nothing is ever appended again."""
    with Forwarder(world.url) as way:
        worker = world.start(url=way.url)
        world.reaches(1)
        dead = threading.Event()

        def kill() -> None:
            worker.signal(signal.SIGKILL)
            dead.set()

        way.when(":checkpoint:2:", kill)
        world.feeder().send(ROLLOUT)
        assert dead.wait(10)
        assert world.version() == 1
        world.start()
        world.reaches(2)
        world.check_exactly_once()


def test_power_loss_after_the_watermark_covered_an_entry(make_world, client_name):
    """Stream, head and watermark go back together; offered again, it is in the new line once.

    The version is issued a second time, under a new token, and the agents take it whole.
    """
    with RedisServer(aof="always") as server:
        world = make_world(server.url, client_name)
        with Team(world) as team:
            world.start()
            team.play(ROLLOUT // 2)
            before = world.reaches(2)
            eventually(lambda: all(agent.version == 2 for agent in team.agents))
            saved = server.data_dir / "saved"
            shutil.copytree(server.data_dir / "appendonlydir", saved)
            team.play(ROLLOUT)
            after = world.reaches(4)
            eventually(lambda: all(agent.version == 4 for agent in team.agents))
            marks = read_ledgers(world.broker, world.keys)
            assert {mark.watermark for mark in marks.values()} == {team.ended}
            server.kill()
            shutil.rmtree(server.data_dir / "appendonlydir")
            saved.rename(server.data_dir / "appendonlydir")
            server.restart()
            team.trained()
            head = world.head()
            assert head is not None
            assert (head.version, after.version) == (4, 4)
            assert (before.token == after.token) != (head.token == after.token)
            newest = {(head.version, head.token)}
            eventually(lambda: {(a.version, a.status().token) for a in team.agents} == newest)
            for agent in team.agents:
                assert agent.status().rollbacks == 1
                check_acts_as_published(world, agent)


def check_acts_as_published(world, agent) -> None:
    """The weights under (version, token) are the published ones, whatever was there before."""
    model = ModelSubscriber(world.broker, world.keys).refresh(None)
    assert model is not None
    assert (model.version, model.token) == (agent.status().version, agent.status().token)
    spec = load_config(world.config, environ={}).spec()
    policy = build_policy(spec, model.weights, model.extras, model.version, model.token)
    action = agent.evaluate(OBS)
    observation = flatten(spec.observation_space, OBS)
    assert (action.action, action.log_prob) == policy.greedy(observation, None)


def test_a_gap_left_by_a_destroyed_entry_is_passed(world):
    """Trimmed by a third party behind the agents' backs: skipped, counted, and no gap for ever."""
    with Team(world, retain_s=0.2) as team:
        team.play(ROLLOUT)
        team.flush()
        eventually(lambda: {agent.status().floor for agent in team.agents} == {ROLLOUT + 1})
        gone = {row[0]: row[1] for row in world.broker.redis.xrange(world.keys.traj, count=3)}
        missing = {(f[b"agent_id"].decode(), int(f[b"seq"])) for f in gone.values()}
        world.broker.call("XTRIM", world.keys.traj, "MINID", list(gone)[-1])
        world.broker.call("XDEL", world.keys.traj, list(gone)[-1])
        world.start()
        team.play(2 * ROLLOUT + 1)
        team.flush()

        def passed() -> bool:
            report = team.report()
            return report.closes and report.total("skipped") == len(missing)

        eventually(passed, 20, ignoring=(BrokerError,))
        ledgers = read_ledgers(world.broker, world.keys)
        assert all(not mark.above for mark in ledgers.values())
        report = team.report()
        assert report.total("accepted") == 2 * team.ended
        assert report.total("trained") + report.total("pending") == 2 * team.ended - len(missing)
        assert not missing & set(world.taken())
        assert set(world.taken().values()) == {1}


def reset(world: World, _: dict[str, bytes]) -> int:
    """An operator begins a new lineage; the version that there is then."""
    reset_client(world.broker, world.keys)
    return 0


def delete(world: World, _: dict[str, bytes]) -> int:
    """An operator deletes the client, and an agent registers it again."""
    delete_client(world.broker, world.keys, force=True, wall_ms=0)
    world.register()
    return 0


def go_back(world: World, saved: dict[str, bytes]) -> int:
    """The broker loses its last commit."""
    for key, data in saved.items():
        world.broker.call("RESTORE", key, 0, data, "REPLACE")
    return 2


@pytest.mark.parametrize("read", ["HGETALL", "HMGET"])
@pytest.mark.parametrize("change", [reset, delete, go_back])
def test_a_head_that_is_replaced_while_a_worker_reads_what_belongs_to_it(world, read, change):
    """It begins again at the new one, and takes nothing for damage that people have to mend.

    Between the head and its checkpoint, and between the checkpoint and the watermarks.
    """
    first, feeder = world.start(), world.feeder()
    feeder.send(ROLLOUT)
    world.reaches(2)
    saved = {key: world.broker.call("DUMP", key) for key in (world.keys.head, world.keys.seq)}
    feeder.send(ROLLOUT)
    key = {"HGETALL": world.keys.head, "HMGET": world.reaches(3).checkpoint}[read]
    assert first.stop() == 0
    versions: list[int] = []
    with Forwarder(world.url) as way:
        way.when(
            f"{read}\r\n${len(key)}\r\n{key}\r\n",
            lambda: versions.append(change(world, saved)),
        )
        worker = world.start(url=way.url)
        eventually(lambda: versions, 20)
        worker.says("reason=STALE")
        worker.says(f"version={versions[0]}")
        assert worker.poll() is None


def test_one_step_episodes_and_a_replay_buffer_at_the_high_water_mark(world):
    """What the buffer keeps in the stream is far above the mark, and holds nobody back for ever.

    An update takes more steps than the mark lets into the stream, so worker and agents could wait
    for each other; and the worker is killed while they do.
    """
    mark, kept = 16, 64
    world.define(
        algorithm="DQN",
        parameters={"buffer_size": kept, "update_steps": 64, "learning_starts": 32},
    )
    with Team(world, high_water_entries=mark) as team:
        team.play(40, steps=1)
        eventually(lambda: {a.status().broker for a in team.agents} == {"paused"})
        worker = world.start()
        eventually(lambda: world.version() > 1)
        worker.kill()
        team.play(40, steps=1)
        world.start()
        team.trained()
        head = world.head()
        assert head is not None
        # 160 one-step episodes, and never more than the mark of two agents for one update.
        assert head.version >= 160 // (2 * mark)
        assert head.retained == kept == world.broker.call("XLEN", world.keys.traj)
        team.up()
