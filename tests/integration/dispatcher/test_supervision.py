"""When workers are started, restarted, given up and let go; time and processes are pretended."""

import logging
import socket

import pytest

from rl4sys_stream.broker.admin import delete_client, reset_client
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.keys import DISPATCHERS_KEY, ClientKeys
from rl4sys_stream.broker.lease import Lease, read_lease
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    WorkerReport,
    write_heartbeat,
    write_worker_report,
)
from rl4sys_stream.dispatcher.report import read_dispatchers
from rl4sys_stream.errors import UsageError
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.dispatcher.pretend import World

pytestmark = pytest.mark.integration

KEYS = ClientKeys("lander")


@pytest.fixture(scope="module")
def own_server():
    """A dispatcher looks after every client, so it needs a broker to itself."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def own_broker(own_server):
    """The empty broker of this test."""
    broker = Broker(BrokerAddress.from_url(own_server.url), timeout_s=2.0, name="test")
    broker.call("FLUSHALL")
    yield broker
    broker.close()


@pytest.fixture
def world(own_broker):
    """A dispatcher over one registered client."""
    world = World(own_broker)
    world.register("lander")
    return world


@pytest.fixture
def events():
    """What the dispatcher logs, level and text, whatever other tests did to the logging."""
    seen: list[tuple[int, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.levelno, record.getMessage()))

    handler = Keep()
    logger = logging.getLogger("rl4sys_stream.dispatcher")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_each_registered_client_gets_one_worker(world):
    """Once, however often the dispatcher looks, and new ones as they come."""
    for _ in range(3):
        world.tick(after_s=1.0)
    assert [process.client for process in world.started] == ["lander"]
    world.register("cartpole")
    world.tick()
    assert [process.client for process in world.started] == ["lander", "cartpole"]
    report = world.report()
    assert (report.state, report.pid) == ("starting", world.started[0].pid)


def test_a_client_whose_lease_is_held_is_left_alone(world):
    """Another dispatcher's worker, or one started by hand, does the work."""
    lease = Lease(world.broker, KEYS, ttl_s=60)
    lease.acquire()
    world.tick()
    assert not world.started
    lease.release()
    world.tick()
    assert len(world.started) == 1


def test_a_failed_worker_is_restarted_after_a_wait_that_grows(world):
    """And the reason of the failure stays readable while it is tried again."""
    world.tick()
    waits = []
    for _ in range(3):
        world.started[-1].code = -9
        before, begun = len(world.started), world.clock.now
        world.tick()
        while len(world.started) == before:
            world.tick(after_s=0.01)
        waits.append(world.clock.now - begun)
    assert 0.25 <= waits[0] <= 0.52
    assert 0.5 <= waits[1] <= 1.02
    assert 1.0 <= waits[2] <= 2.02
    assert world.report().detail == "killed by SIGKILL"


def test_a_worker_that_ran_well_for_long_starts_the_count_anew(world):
    """A crash a day is no crash loop."""
    world.tick()
    for _ in range(20):
        world.clock.now += world.settings.healthy_s
        world.fail(1)
    assert len(world.started) == 21


def test_after_the_limit_the_client_is_given_up_until_it_is_reset(world, events):
    """`status` reads why from the worker's report; a reset is a new beginning."""
    world.tick()
    world.fail(78, times=world.settings.crash_limit)
    assert len(world.started) == 5
    for _ in range(3):
        world.tick(after_s=3600)
    assert len(world.started) == 5
    report = world.report()
    assert report.state == "crash_loop"
    assert report.detail == ("given up after 5 failures in a row, the last: exit code 78 (config)")
    errors = [text for level, text in events if level == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("dispatcher.crash_loop client=lander")
    assert "restart the dispatcher" in errors[0]

    reset_client(world.broker, KEYS)
    world.tick()
    assert len(world.started) == 6
    assert world.report().state == "starting"
    world.fail(78)
    assert len(world.started) == 7, "the count starts anew with the lineage"


def test_a_new_dispatcher_tries_again_what_the_last_gave_up(world):
    """Mend the cause, restart the dispatcher."""
    world.tick()
    world.fail(1, times=5)
    again = World(world.broker)
    again.tick()
    assert len(again.started) == 1


def test_what_the_worker_said_of_its_failure_is_kept(world):
    """The exit code alone would send people to the logs of five processes."""
    world.tick()
    for _ in range(5):
        report = WorkerReport(
            state="failed",
            host=socket.gethostname(),
            pid=world.started[-1].pid,
            detail="SpecMismatchError: action_space.n",
        )
        write_worker_report(world.broker, KEYS, report)
        world.fail(78)
    detail = world.report().detail
    assert detail.endswith("exit code 78 (config): SpecMismatchError: action_space.n")


def test_a_broker_that_refuses_its_workers_is_waited_for_without_end(world):
    """That is no fault of the client, and ends without anybody touching the client."""
    world.tick()
    world.fail(69, times=12)
    assert len(world.started) == 13


def test_a_worker_that_ends_well_is_started_again(world):
    """Somebody ended it by hand; the client still needs one. Not in the same instant, though."""
    world.tick()
    world.started[-1].code = 0
    world.tick()
    assert len(world.started) == 1
    world.tick(after_s=world.settings.backoff_s)
    assert len(world.started) == 2


def test_the_lease_of_a_dead_worker_is_given_back_at_once(world):
    """Its parent knows that it is dead; nobody has to wait for the lease to expire."""
    world.tick()
    lease = Lease(world.broker, KEYS, ttl_s=60)
    lease.acquire()
    report = WorkerReport(
        state="training", host=socket.gethostname(), pid=world.started[0].pid, token=lease.token
    )
    write_worker_report(world.broker, KEYS, report)
    world.started[0].code = -9
    world.tick()
    assert not read_lease(world.broker, KEYS).holder
    world.tick(after_s=1.0)
    assert len(world.started) == 2


def test_the_lease_of_somebody_elses_worker_is_not_touched(world):
    """A worker on another host took over in between; only its own are known to be dead."""
    world.tick()
    lease = Lease(world.broker, KEYS, ttl_s=60)
    lease.acquire()
    report = WorkerReport(
        state="idle", host="elsewhere", pid=world.started[0].pid, token=lease.token
    )
    write_worker_report(world.broker, KEYS, report)
    world.started[0].code = -9
    world.tick()
    world.tick(after_s=60)
    assert read_lease(world.broker, KEYS).holder == lease.token
    assert len(world.started) == 1


def test_no_more_workers_run_than_there_is_room_for(own_broker, events):
    """The others wait, which is said once, and get their turn."""
    world = World(own_broker, capacity=2)
    for name in ("a", "b", "c"):
        world.register(name)
    for _ in range(4):
        world.tick(after_s=1.0)
    assert [process.client for process in world.started] == ["a", "b"]
    full = [text for _, text in events if "capacity.full" in text]
    assert len(full) == 1
    assert full[0].startswith("dispatcher.capacity.full capacity=2 waiting=c")
    delete_client(own_broker, ClientKeys("a"), force=False, wall_ms=1)
    world.tick()
    world.tick()
    assert [process.client for process in world.started] == ["a", "b", "c"]


def test_a_system_that_cannot_start_another_process_is_tried_again(world):
    """Out of processes or memory: one more failure with its backoff, not the end of all workers."""
    world.no_room = 2
    world.tick()
    world.tick(after_s=2.0)
    assert not world.started
    world.tick(after_s=4.0)
    assert len(world.started) == 1
    assert "could not be started" in world.report().detail


def test_the_worker_of_a_deleted_client_is_asked_to_go(world):
    """And the client is forgotten, so that a later one of that name starts clean."""
    world.register("cartpole")
    world.tick()
    delete_client(world.broker, KEYS, force=False, wall_ms=1)
    world.tick()
    by_name = {process.client: process for process in world.started}
    assert by_name["lander"].signals == ["TERM"]
    assert by_name["cartpole"].signals == []
    world.register("lander")
    world.tick(after_s=1.0)
    world.tick()
    assert [p.client for p in world.started] == ["cartpole", "lander", "lander"]


def test_a_worker_that_does_not_go_is_killed_and_holds_nobody_up(world):
    """Meanwhile the other clients are looked after, and no second worker starts beside it."""
    world.stubborn = True
    world.tick()
    delete_client(world.broker, KEYS, force=False, wall_ms=1)
    begun = world.clock.now
    world.tick()
    assert world.clock.now == begun, "the loop must not wait for it"
    world.register("lander")
    world.register("cartpole")
    world.tick(after_s=1.0)
    assert [p.client for p in world.started] == ["lander", "cartpole"]
    world.tick(after_s=world.settings.grace_s)
    assert world.started[0].signals == ["TERM", "KILL"]
    world.tick()
    assert [p.client for p in world.started] == ["lander", "cartpole", "lander"]


def test_a_client_with_running_agents_is_deleted_by_force_alone(world):
    """They would register it again at once."""
    now_ms = world.clock.wall_ms()
    write_heartbeat(world.broker, KEYS, AgentHeartbeat(agent_id="app-1", time_ms=now_ms))
    with pytest.raises(UsageError, match=r"app-1.*--force"):
        delete_client(world.broker, KEYS, force=False, wall_ms=now_ms)
    assert delete_client(world.broker, KEYS, force=False, wall_ms=now_ms + 10_000) > 0


def test_a_stop_ends_all_workers_and_the_report(world):
    """First all are asked, then waited for; a stubborn one is killed."""
    world.register("cartpole")
    world.tick()
    assert read_dispatchers(world.broker)[0].clients == ("cartpole", "lander")
    world.started[0].stubborn = True
    world.dispatcher.stop()
    world.dispatcher.run()
    assert [p.signals for p in world.started] == [["TERM", "KILL"], ["TERM"]]
    assert not read_dispatchers(world.broker)


def test_reports_of_long_gone_dispatchers_are_swept_out(world):
    """Containers that are killed each leave one, under a name that never comes back."""
    now_ms = world.clock.wall_ms() + 100_000_000
    world.broker.hash_set(
        DISPATCHERS_KEY,
        {
            "old": b'{"dispatcher_id":"old","time_ms":1}',
            "new": b'{"dispatcher_id":"new","time_ms":%d}' % now_ms,
            "broken": b"{",
        },
    )
    world.clock.now += 100_000
    world.dispatcher.stop()
    world.dispatcher.run()
    left = read_dispatchers(world.broker)
    assert [report.dispatcher_id for report in left] == ["new"]
    assert left[0].live(now_ms)
    assert not left[0].live(now_ms + 10_000)


@pytest.mark.fault
def test_a_broker_that_is_away_stops_nobody(events):
    """The workers wait for it by themselves; the dispatcher says so once, and goes on after."""
    with RedisServer() as server:
        broker = Broker(BrokerAddress.from_url(server.url), timeout_s=1.0, name="test")
        world = World(broker)
        world.register("lander")
        world.tick()
        server.kill()
        for _ in range(3):
            world.tick(after_s=1.0)
        assert world.started[0].signals == []
        world.started[0].code = -9
        world.tick()
        world.tick(after_s=60.0)
        assert len(world.started) == 1
        down = [text for _, text in events if text.startswith("dispatcher.broker.down")]
        assert len(down) == 1
        server.restart()

        def started_again() -> bool:
            world.tick(after_s=60.0)
            return len(world.started) == 2

        eventually(started_again, 10, "the worker is started again")
        broker.close()


@pytest.mark.fault
def test_a_client_whose_last_failure_met_a_dead_broker_is_not_given_up_in_the_dark():
    """Which lineage it was is unknown then, so it gets one more round."""
    with RedisServer() as server:
        broker = Broker(BrokerAddress.from_url(server.url), timeout_s=1.0, name="test")
        world = World(broker)
        world.register("lander")
        world.tick()
        world.fail(1, times=4)
        server.kill()
        world.started[-1].code = 1
        world.tick()
        server.restart()
        world.tick(after_s=60.0)
        assert len(world.started) == 6
        broker.close()


def test_one_clients_damaged_keys_are_not_the_others_trouble(own_broker, events):
    """Names that cannot be one, and a lease of the wrong type; told once, and the rest goes on."""
    world = World(own_broker)
    own_broker.call("SADD", "rl4sys:clients", "bad name!", b"\xff\xfe")
    world.register("a")
    world.register("good")
    own_broker.call("LPUSH", ClientKeys("a").lease, "x")
    for _ in range(3):
        world.tick(after_s=1.0)
    assert [process.client for process in world.started] == ["good"]
    errors = [text for level, text in events if level == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("dispatcher.client.unreadable client=a ")
