"""Brokers that die, hang or fill up under a training worker."""

import threading

import pytest

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.errors import BrokerFullError
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.worker.world import ROLLOUT, World
from tests.unit.worker.entries import entry_fields, trajectory

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("aof", ["always", "everysec"])
def test_a_broker_that_is_killed_and_restarted_loses_nothing(make_world, client_name, aof):
    """Under way; the worker process survives it, and the agent sends again what was unanswered."""
    with RedisServer(aof=aof) as server:
        world = make_world(server.url, client_name)
        world.define(lease_s=0.61, lease_renew_s=0.2)
        worker = world.start()
        feeder = world.feeder()
        stop = threading.Event()

        def feed() -> None:
            while not stop.is_set():
                feeder.send(2)
                stop.wait(0.02)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            for kill in range(2):
                world.reaches(5 + world.version() if kill else 3)
                server.kill()
                server.restart()
                feeder.beat()
        finally:
            stop.set()
            thread.join()
        world.settles(30)
        assert worker.poll() is None
        world.check_exactly_once(pending=len(feeder.sent) % ROLLOUT)
        assert worker.stop() == 0


def test_a_broker_that_hangs_is_waited_for(make_world, client_name):
    """Connections stay open and nothing answers; then it goes on."""
    with RedisServer(aof=None) as server:
        world = make_world(server.url, client_name)
        worker = world.start()
        feeder = world.feeder()
        world.reaches(1)
        feeder.send(5 * ROLLOUT)
        server.pause()
        threading.Event().wait(1.0)
        server.resume()
        feeder.send(ROLLOUT)
        world.reaches(7)
        assert worker.poll() is None
        world.check_exactly_once()


def test_a_broker_that_forgets_everything_is_started_on_anew(make_world, client_name):
    """No file, no data: when an agent has registered the client again, a lineage begins."""
    with RedisServer(aof=None) as server:
        world = make_world(server.url, client_name)
        worker = world.start()
        feeder = world.feeder()
        feeder.send(2 * ROLLOUT)
        before = world.reaches(3)
        server.kill()
        server.restart()
        worker.says("worker.client.not_registered")
        world.register()
        head = world.reaches(1)
        assert head.lineage != before.lineage
        feeder.sent.clear()
        feeder.floor = 1
        feeder.send(ROLLOUT)
        world.reaches(2)
        world.check_exactly_once()


def fill(world: World) -> int:
    """Append trajectories until the broker refuses; how many it took."""
    taken = 0
    while True:
        fields = entry_fields("a", taken + 1, trajectory(64, seed=taken % 7))
        try:
            world.broker.call("XADD", world.keys.traj, "*", *[x for pair in fields for x in pair])
        except BrokerFullError:
            return taken
        taken += 1


def test_a_broker_full_of_trajectories_is_emptied(make_world, client_name):
    """The first worker comes when nothing more fits in, and with other parameters than registered.

    All that was taken in is trained.
    """
    rollout = {"n_steps": 4096, "batch_size": 2048}
    with RedisServer(aof=None, maxmemory="9mb") as server:
        world = make_world(server.url, client_name)
        world.define(parameters={**rollout, "n_epochs": 2}, retain_versions=2)
        world.register()
        taken = fill(world)
        with pytest.raises(BrokerFullError):
            world.broker.call("SET", "more", b"x" * 65536)
        world.define(parameters={**rollout, "n_epochs": 1}, retain_versions=2)
        world.start()
        rollouts = taken * 64 // 4096
        assert rollouts > 2
        world.reaches(1 + rollouts, timeout_s=40)
        eventually(lambda: audit_client(world.broker, world.keys).closes)
        report = audit_client(world.broker, world.keys)
        assert report.total("trained") + report.total("pending") == taken
        assert report.total("trained") >= rollouts * 4096 // 64
