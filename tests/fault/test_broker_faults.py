"""Brokers that lose writes, refuse them, or are edited by hand, under real agents and a worker."""

import re
from collections.abc import Callable, Iterable

import pytest

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.cli.doctor import Finding, _client, _examine_broker
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.testing import RedisServer, eventually
from tests.fault.forwarder import Forwarder
from tests.fault.team import ROLLOUT, Team
from tests.integration.worker.world import World

pytestmark = pytest.mark.fault


def test_a_cut_tail_of_the_append_only_file_is_filled_again(make_world, client_name):
    """Three times the machine dies and its last writes with it; all of it is offered again."""
    with RedisServer(aof="always") as server:
        world = make_world(server.url, client_name)
        with Team(world) as team:
            worker = world.start()
            for cut_bytes in (2_000, 30_000, 9_000):
                team.play(ROLLOUT)
                world.reaches(world.version() + 1)
                server.kill()
                (log,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
                with log.open("r+b") as file:
                    file.truncate(max(log.stat().st_size - cut_bytes, 0))
                server.restart()
                team.play(1)
            team.play(ROLLOUT - 3)
            team.trained()
            assert worker.poll() is None


def test_a_failover_to_a_replica_that_lags_loses_no_acknowledged_write(make_world, client_name):
    """Replication stops, the primary takes more, dies, and the replica takes its place."""
    with (
        RedisServer(aof=None) as primary,
        RedisServer(aof=None) as replica,
        Forwarder(primary.url) as way,
    ):
        world = make_world(way.url, client_name)
        first = Broker(BrokerAddress.from_url(primary.url), name="primary")
        second = Broker(BrokerAddress.from_url(replica.url), name="replica")
        for one in (first, second):  # one password, so that clients find either
            one.call("CONFIG", "SET", "requirepass", password(primary.url))
        second.close()
        second = Broker(
            BrokerAddress.from_url(primary.url.replace(f":{primary.port}", f":{replica.port}")),
            name="replica",
        )
        second.call("CONFIG", "SET", "masterauth", password(primary.url))
        second.call("REPLICAOF", "127.0.0.1", primary.port)
        with Team(world) as team:
            worker = world.start()
            team.play(ROLLOUT)
            world.reaches(3)
            eventually(lambda: second.call("EXISTS", world.keys.model(*newest(world))))
            second.call("REPLICAOF", "127.0.0.1", 1)
            team.play(ROLLOUT)
            team.flush()
            world.reaches(5)
            lost = world.head()
            primary.kill()
            second.call("REPLICAOF", "NO", "ONE")
            way.switch(replica.port)
            team.trained()
            head = world.head()
            assert head is not None
            assert lost is not None
            assert head.token != lost.token, "the acknowledged commits were lost"
            assert all(agent.status().rollbacks for agent in team.agents)
            assert worker.poll() is None
        first.close()
        second.close()


def newest(world: World) -> tuple[int, str]:
    """Version and token of the head."""
    head = world.head()
    assert head is not None
    return head.version, head.token


def password(url: str) -> str:
    """The password in an address."""
    found = re.search(r":([^:@/]+)@", url)
    assert found is not None
    return found[1]


def pause_writes(broker: Broker) -> None:
    """As a managed broker does before it hands over."""
    broker.call("CLIENT", "PAUSE", 1500, "WRITE")


def kill_clients(broker: Broker) -> None:
    """As an operator, a proxy or a limit does; this connection is cut with the others."""
    for kind in ("normal", "pubsub"):
        broker.call("CLIENT", "KILL", "TYPE", kind)


@pytest.mark.parametrize("fault", [pause_writes, kill_clients])
def test_a_pause_and_cut_connections_are_sat_out(world, fault):
    """Under way, three times; nobody exits and nothing is lost."""
    with Team(world) as team:
        worker = world.start()
        for _ in range(3):
            team.play(ROLLOUT)
            fault(world.broker)
            team.play(ROLLOUT)
        team.trained()
        assert worker.poll() is None


def test_a_full_broker_is_emptied_by_the_worker_and_filled_again_by_the_agents(
    make_world, client_name
):
    """Agents queue meanwhile; the commits find room, and nothing is dropped."""
    with RedisServer(aof=None) as server:
        world = make_world(server.url, client_name)
        with Team(world, retain_s=1.0) as team:
            team.play(2 * ROLLOUT)
            team.flush()
            world.broker.call("CONFIG", "SET", "maxmemory", 1)
            team.play(ROLLOUT)
            eventually(lambda: {agent.status().broker for agent in team.agents} == {"refusing"})
            world.start()
            world.reaches(1 + 4)
            assert world.broker.call("XLEN", world.keys.traj) == 0
            waiting = [a.status().queued + a.status().unanswered for a in team.agents]
            assert waiting == [ROLLOUT, ROLLOUT]
            world.broker.call("CONFIG", "SET", "maxmemory", "512mb")
            team.trained()


def misconf(server: RedisServer, broker: Broker) -> Callable[[], None]:
    """A snapshot cannot be written, so the broker takes no writes; returns the repair."""
    broker.call("CONFIG", "SET", "save", "3600 1")
    snapshot = server.data_dir / "dump.rdb"
    snapshot.unlink(missing_ok=True)
    snapshot.mkdir()
    (snapshot / "in_the_way").touch()

    def saved(state: str) -> bool:
        if broker.redis.info("persistence")["rdb_bgsave_in_progress"] == 0:
            broker.call("BGSAVE")
        return bool(broker.redis.info("persistence")["rdb_last_bgsave_status"] == state)

    eventually(lambda: saved("err"), ignoring=(BrokerError,))

    def repair() -> None:
        (snapshot / "in_the_way").unlink()
        snapshot.rmdir()
        eventually(lambda: saved("ok"), ignoring=(BrokerError,))

    return repair


def read_only(server: RedisServer, broker: Broker) -> Callable[[], None]:
    """The server has become a replica; returns the repair."""
    broker.call("REPLICAOF", "127.0.0.1", 1)
    return lambda: broker.call("REPLICAOF", "NO", "ONE")


def without_replicas(_: RedisServer, broker: Broker) -> Callable[[], None]:
    """It may be cut off, so it takes no writes; returns the repair."""
    broker.call("CONFIG", "SET", "min-replicas-to-write", 1)
    return lambda: broker.call("CONFIG", "SET", "min-replicas-to-write", 0)


@pytest.mark.parametrize("fault", [misconf, read_only, without_replicas])
def test_a_broker_that_takes_no_writes_is_waited_for(make_world, client_name, fault):
    """Agents queue and say so, the worker waits; afterwards all is trained."""
    with RedisServer(aof=None) as server:
        world = make_world(server.url, client_name)
        with Team(world) as team:
            worker = world.start()
            team.play(ROLLOUT)
            world.reaches(3)
            repair = fault(server, world.broker)
            team.play(ROLLOUT)
            eventually(lambda: {agent.status().broker for agent in team.agents} == {"refusing"})
            assert "does not take writes" in team.agents[0].status().last_error or (
                "read-only" in team.agents[0].status().last_error
            )
            if fault is read_only:
                assert finding(_examine_broker(world.broker), "role").result == "fault"
            repair()
            team.trained()
            assert worker.poll() is None


def finding(findings: Iterable[Finding], check: str) -> Finding:
    """What `doctor` says of one check."""
    return next(one for one in findings if one.check == check)


def delete(*names: str) -> Callable[[World], int]:
    """An operator deletes keys."""
    return lambda world: world.broker.unlink(*(getattr(world.keys, name) for name in names))


def delete_all(world: World) -> None:
    """All that the client has, but for its name."""
    world.broker.unlink(*list(world.broker.scan(world.keys.pattern)))


def flush_all(world: World) -> None:
    """Everything, of everybody."""
    world.broker.call("FLUSHALL")


def destroy_group(world: World) -> None:
    """With its list of pending entries."""
    world.broker.call("XGROUP", "DESTROY", world.keys.traj, "workers")


@pytest.mark.parametrize(
    ("fault", "retrained"),
    [
        pytest.param(destroy_group, False, id="group"),
        pytest.param(delete("fence", "lease"), False, id="fence"),
        pytest.param(delete("head"), False, id="head"),
        pytest.param(delete("seq"), False, id="seq"),
        pytest.param(delete("spec"), False, id="spec"),
        pytest.param(delete_all, True, id="client"),
        pytest.param(flush_all, True, id="flushall"),
    ],
)
def test_keys_that_an_operator_deletes_are_recovered_from(
    make_world, client_name, fault, retrained
):
    """Agents register and offer again; the worker goes on, or begins a new training, by itself.

    With the watermarks gone the entries are new to the new lineage, which takes each in once.
    """
    with RedisServer(aof=None) as server:
        world = make_world(server.url, client_name)
        with Team(world) as team:
            worker = world.start()
            team.play(ROLLOUT)
            team.trained()
            before = world.head()
            team.play(1)  # in the worker's hands when it happens
            team.flush()
            fault(world)
            team.play(ROLLOUT - 1)

            def settled() -> bool:
                report = team.report()
                taken = world.taken()
                assert set(taken.values()) <= {1}, "trained twice"
                assert report.closes, report
                assert report.total("lost") == report.total("skipped") == 0
                return report.total("trained") == 2 * team.ended

            eventually(settled, 30, ignoring=(Exception,))
            head = world.head()
            assert head is not None
            assert before is not None
            assert worker.poll() is None
            if retrained:
                assert head.lineage != before.lineage
                assert set(world.taken()) == team.numbers
            assert all(f.result != "fault" for f in _client(world.broker, client_name))


def test_doctor_says_what_was_lost_with_deleted_keys(make_world, client_name):
    """Watermarks gone: what was trained is not accounted for. Model gone: neither is the weights'.

    No agent retains anything any more, so nothing repairs it behind our backs.
    """
    with RedisServer(aof=None) as server:
        world = make_world(server.url, client_name)
        with Team(world, retain_s=0.1) as team:
            world.start()
            team.play(ROLLOUT)
            team.trained()
        assert world.workers[0].stop() == 0
        head = world.head()
        assert head is not None
        check = f"client {client_name}"

        def faults() -> list[str]:
            return [
                f"{one.detail}; {one.next_move}"
                for one in _client(world.broker, client_name)
                if one.check == check and one.result == "fault"
            ]

        assert faults() == []
        saved = world.broker.hash_all(world.keys.seq)
        world.broker.unlink(world.keys.seq)
        (said,) = faults()
        assert f"{2 * ROLLOUT} trajectories are not accounted for" in said
        world.broker.redis.hset(world.keys.seq, mapping=dict(saved))
        world.broker.unlink(head.checkpoint)
        (said,) = faults()
        assert f"the checkpoint of version {head.version} is gone" in said
        assert f"clients reset {client_name}" in said
        worker = world.start()
        assert worker.wait() == 66
        assert "training cannot go on" in worker.log
        world.broker.unlink(world.keys.spec)
        (said,) = faults()
        assert "its spec is gone" in said
