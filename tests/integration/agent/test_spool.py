"""An agent with a spool whose disk fills up, whose process forks, whose queue overflows."""

from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.agent.spool.folder import SpoolFolder
from rl4sys_stream.broker.registry import write_heartbeat
from rl4sys_stream.errors import SpoolError
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.agent.forks import forking, in_child
from tests.integration.agent.world import OBS, World, play
from tests.unit.agent.spool.disk import Disk


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A folder of the test's own."""
    return tmp_path / "spool"


@pytest.fixture
def away() -> str:
    """Where no broker is any more."""
    with RedisServer() as server:
        return server.url


def disk_bytes(spool: Path) -> int:
    """What the segments take."""
    return sum(path.stat().st_size for path in spool.rglob("*.seg"))


def tags(world: World) -> list[float]:
    """First rewards of what arrived, in order, duplicates apart."""
    return list(dict.fromkeys(float(sent.trajectory.rewards[0]) for sent in world.sent()))


def test_a_full_disk_costs_the_spool_and_not_the_application(world: World, spool, monkeypatch):
    """What finds no room is kept in memory, counted, and sent in its turn."""
    with world.agent(spool_dir=str(spool)) as agent:
        play(agent, 2)
        assert agent.flush(10)
        disk = Disk(monkeypatch)
        disk.room = disk.writes = False
        play(agent, 5, tag=2)
        eventually(lambda: agent.status().broker == "spool_failing")
        status = agent.status()
        assert (status.unsaved, status.queued, status.dropped) == (5, 5, 0)
        assert "given twice" in status.last_error
        disk.room = disk.writes = True
        assert agent.flush(10)
        play(agent, 2, tag=7)
        assert agent.flush(10)
        assert tags(world) == list(range(9))
        assert agent.status().broker == "up"


def test_a_disk_that_fails_does_not_keep_what_has_its_number(client_name, spool, monkeypatch):
    """It is offered again after a restart although nothing new can be written down."""
    with RedisServer(aof=None) as server:
        world = World(server.url, client_name)
        with world.agent(spool_dir=str(spool), retain_s=60.0) as agent:
            play(agent, 4)
            assert agent.flush(10)
            disk = Disk(monkeypatch)
            disk.room = disk.writes = False
            play(agent, 1, tag=4)
            eventually(lambda: agent.status().broker == "spool_failing")
            server.kill()
            server.restart()
            eventually(lambda: len(set(world.numbers(agent.agent_id))) == 4, 20)
            assert agent.status().queued == 1
            disk.room = disk.writes = True
            assert agent.flush(20)
        world.close()


def test_a_failing_disk_still_lets_go_of_what_is_delivered(world: World, spool, monkeypatch):
    """Else a disk that the spool has filled would stay full for ever."""
    with world.agent(spool_dir=str(spool)) as agent:
        play(agent, 4)
        assert agent.flush(10)
        disk = Disk(monkeypatch)
        disk.room = disk.writes = False
        play(agent, 1)
        eventually(lambda: agent.status().broker == "spool_failing")
        eventually(lambda: agent.status().floor == 5)
        disk.room = disk.writes = True
        assert agent.flush(10)


@pytest.mark.parametrize(("policy", "left"), [("drop_oldest", "last"), ("drop_newest", "first")])
def test_a_full_spool_drops_by_policy_within_a_bounded_disk(
    client_name, away, spool, policy, left, monkeypatch
):
    """The broker is away for long; what is over the limit is gone, and known to be."""
    monkeypatch.setattr("rl4sys_stream.agent.spool.journal.SEGMENT_BYTES", 1 << 17)
    limit, episodes = 1 << 17, 900
    world = World(away, client_name)
    agent = world.agent(spool_dir=str(spool), spool_bytes=limit, drop_policy=policy)
    play(agent, episodes, steps=8)
    status = agent.status()
    assert status.dropped > 200
    assert status.queued + status.dropped == status.accepted == episodes
    assert status.queued_bytes <= limit
    # Whole segments, room for the books in each, and the one that is being written.
    assert disk_bytes(spool) <= 6 * limit
    agent.close(timeout_s=0.1)
    assert agent.status().queued == status.queued
    with RedisServer() as server:
        later = World(server.url, client_name)
        with later.agent(spool_dir=str(spool)) as heir:
            eventually(lambda: heir.status().adopted == 1, 20)
            found = tags(later)
        first = episodes - status.queued if left == "last" else 0
        assert found == list(range(first, first + status.queued))
        later.close()
    world.close()
    assert disk_bytes(spool) == 0


def test_many_lives_without_a_broker_share_one_bound_of_the_disk(client_name, away, spool):
    """The first leaves what it had queued; that fills the spool, so the next live in memory."""
    limit, world = 1 << 17, World(away, client_name)
    sizes, unsaved = [], []
    for _ in range(6):
        agent = world.agent(spool_dir=str(spool), spool_bytes=limit)
        play(agent, 300, steps=8)
        status = agent.status()
        assert status.queued + status.dropped == status.accepted == 300
        agent.close(timeout_s=0.1)
        sizes.append(disk_bytes(spool))
        unsaved.append(status.unsaved)
    assert unsaved[0] == 0
    assert unsaved[-1] == 300
    # The room that the last one had taken is given back by the next.
    assert sizes[-1] <= sizes[1] + (64 << 10)
    with world.agent(spool_dir=str(spool), spool_bytes=limit) as agent:
        assert disk_bytes(spool) <= limit * 4
        agent.close(timeout_s=0.1)
    with RedisServer() as server:
        later = World(server.url, client_name)
        with later.agent(spool_dir=str(spool), spool_bytes=limit, retain_s=0.05) as heir:
            eventually(lambda: heir.status().adopted == len(sizes), 20)
            assert disk_bytes(spool) <= limit + (64 << 10)
            play(heir, 5)
            assert heir.flush(10)
            assert heir.status().unsaved == 0
            eventually(lambda: heir.status().floor == 6)
        later.close()
    world.close()
    assert disk_bytes(spool) == 0


@pytest.mark.parametrize("fault", [OSError(30, "Read-only file system"), ValueError("a fault")])
def test_whatever_a_drop_meets_the_application_goes_on_and_the_books_balance(
    client_name, away, spool, monkeypatch, fault
):
    """Neither a disk that deletes nothing nor a fault of this package is the application's."""
    monkeypatch.setattr("rl4sys_stream.agent.spool.journal.SEGMENT_BYTES", 1 << 17)

    def refuse(path: Path, **options: object) -> None:
        raise fault

    world = World(away, client_name)
    agent = world.agent(spool_dir=str(spool), spool_bytes=1 << 17)
    monkeypatch.setattr("os.unlink", refuse)
    play(agent, 500, steps=8)
    status = agent.status()
    assert status.accepted == 500
    assert status.dropped > 100
    assert status.queued + status.dropped == status.accepted
    monkeypatch.undo()
    agent.close(timeout_s=0.1)
    world.close()


@forking
def test_a_forked_child_has_a_spool_of_its_own(world: World, spool):
    """It neither writes to its parent's nor takes it for an orphan, and the parent goes on."""
    with world.agent(spool_dir=str(spool), retain_s=60.0) as agent:
        play(agent, 3)
        assert agent.flush(10)
        parents_id = agent.agent_id

        def child() -> None:
            play(agent, 2, tag=100)
            assert agent.flush(10)
            names = {path.name for path in (spool / world.client).iterdir()}
            assert names == {parents_id, agent.agent_id}
            assert agent.status().adopted == 0
            agent.close()

        assert in_child(child) == 0
        assert SpoolFolder.adopt(spool / world.client / parents_id) is None
        play(agent, 1, tag=3)
        assert agent.flush(10)
        assert tags(world) == [0, 1, 2, 100, 101, 3]


def test_a_spool_that_cannot_be_made_is_refused_at_construction(world: World, tmp_path):
    """With the setting's name; a file in its place, since root may write anywhere."""
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"agent\.spool_dir"):
        world.agent(spool_dir=str(tmp_path / "file" / "spool"))


def test_the_goodbye_is_said_before_the_spool_is_given_up(world: World, spool, monkeypatch):
    """Afterwards the books are those of whoever adopts it, and must not be overwritten."""
    adopted: list[bool] = []

    def watch(broker, keys, heartbeat) -> None:
        if heartbeat.closed:
            folder = SpoolFolder.adopt(spool / world.client / heartbeat.agent_id)
            adopted.append(folder is not None)
            if folder is not None:
                folder.release()
            assert heartbeat.spooled
        write_heartbeat(broker, keys, heartbeat)

    monkeypatch.setattr("rl4sys_stream.agent.refresher.write_heartbeat", watch)
    agent: StreamAgent = world.agent(spool_dir=str(spool), retain_s=60.0)
    play(agent, 3)
    assert agent.flush(10)
    agent.close()
    assert set(adopted) == {False}
    folder = SpoolFolder.adopt(spool / world.client / agent.agent_id)
    assert folder is not None
    folder.remove()


def test_a_closed_agent_that_has_delivered_for_good_leaves_no_folder(world: World, spool):
    """And says that nothing is spooled."""
    with world.agent(spool_dir=str(spool), retain_s=0.05) as agent:
        play(agent, 2)
        assert agent.flush(10)
        eventually(lambda: agent.status().floor == 3)
    assert list((spool / world.client).iterdir()) == []
    beat = world.heartbeat(agent.agent_id)
    assert beat is not None
    assert (beat.closed, beat.spooled) == (True, False)


def test_a_goodbye_that_nobody_heard_is_said_by_the_next_agent(client_name, spool):
    """Else `audit` would go by what was said last, and call lost what was given up for good."""
    with RedisServer() as server:
        world = World(server.url, client_name)
        agent = world.agent(spool_dir=str(spool), retain_s=0.05)
        play(agent, 2)
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)  # and its reward never comes
        agent.mark_end_of_trajectory(traj, action)
        eventually(lambda: agent.status().floor == 3)
        eventually(lambda: (beat := world.heartbeat(agent.agent_id)) is not None and beat.sealing)
        server.kill()
        agent.close(timeout_s=0.1)
        assert agent.status().quarantined == 1
        server.restart()
        beat = world.heartbeat(agent.agent_id)
        assert beat is not None
        assert not beat.closed
        with world.agent(spool_dir=str(spool)) as heir:
            eventually(lambda: heir.status().adopted == 1, 20)
        beat = world.heartbeat(agent.agent_id)
        assert beat is not None
        assert (beat.closed, beat.sealing, beat.quarantined) == (True, 0, 1)
        assert list((spool / world.client).iterdir()) == []
        world.close()
