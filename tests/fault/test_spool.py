"""Applications with a spool are killed: whatever they had ended is trained, once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.audit import AgentBalance, audit_client
from rl4sys_stream.errors import BrokerError, UnknownClientError
from rl4sys_stream.testing import RedisServer, eventually
from tests.fault.forwarder import Forwarder
from tests.integration.agent.application import Application, play
from tests.integration.worker.world import ROLLOUT, World

pytestmark = pytest.mark.fault

QUICK = {
    "agent.poll_interval_s": 0.05,
    "agent.heartbeat_s": 0.05,
    "agent.retain_s": 0.2,
    "communication.timeout": 2.0,
}


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A folder that all agents of a test share."""
    return tmp_path / "spool"


@pytest.fixture
def start(spool: Path) -> Iterator[Callable[..., Application]]:
    """Starts applications, and kills those that a test leaves alive."""
    made: list[Application] = []

    def start(world: World, url: str = "", **settings: object) -> Application:
        world.define()
        overrides = {**QUICK, "agent.spool_dir": str(spool)}
        overrides |= {f"agent.{name}": value for name, value in settings.items()}
        made.append(Application(world.config, world.client, url or world.url, overrides))
        return made[-1]

    yield start
    for application in made:
        application.kill()


def successor(world: World, spool: Path, **settings: object) -> StreamAgent:
    """The next agent of the same application."""
    overrides = {**QUICK, "agent.spool_dir": str(spool)}
    overrides |= {f"agent.{name}": value for name, value in settings.items()}
    return StreamAgent(world.config, world.client, world.url, overrides=overrides, environ={})


def balance(world: World, agent_id: str) -> AgentBalance:
    """What the audit says of one agent."""
    report = audit_client(world.broker, world.keys)
    return next(agent for agent in report.agents if agent.agent_id == agent_id)


def is_finished(world: World, agent_id: str, trained: int) -> Callable[[], bool]:
    """Whether an agent's books are closed, with that many trained."""

    def finished() -> bool:
        said = balance(world, agent_id)
        assert (said.trained, said.pending) == (trained, 0), said
        return said.closed

    return finished


def check(world: World, numbers: dict[str, int]) -> None:
    """Each of these agents' numbers from 1 on is in exactly one version, and the audit closes."""
    taken = world.taken()
    assert set(taken.values()) == {1}
    assert set(taken) == {
        (name, seq) for name, most in numbers.items() for seq in range(1, most + 1)
    }
    report = audit_client(world.broker, world.keys)
    assert report.closes, report
    assert report.total("trained") == sum(numbers.values())
    assert report.total("lost") == report.total("skipped") == 0


@pytest.mark.parametrize("delivered", [0, 3])
def test_what_was_ended_the_instant_before_a_kill_is_trained_once(world, start, spool, delivered):
    """Kill -9 right after the end was marked; the restarted application finishes the books."""
    dead = start(world)
    dead.play(delivered)
    dead.flush()
    dead.play_and_die(2 * ROLLOUT - delivered)
    world.start()
    with successor(world, spool) as agent:
        play(agent, ROLLOUT)
        eventually(lambda: agent.status().adopted == 1, 20)
        world.reaches(4)
        eventually(is_finished(world, dead.agent_id, 2 * ROLLOUT), 20)
        check(world, {dead.agent_id: 2 * ROLLOUT, agent.agent_id: ROLLOUT})
        assert [path.name for path in (spool / world.client).iterdir()] == [agent.agent_id]
    eventually(lambda: not list((spool / world.client).iterdir()))


def test_what_was_ended_without_a_broker_survives_two_kills(make_world, client_name, start, spool):
    """It was never reachable; the successor is killed as well, in the middle of its work."""
    with RedisServer(aof="always") as server:
        world = make_world(server.url, client_name)
        server.kill()
        first = start(world)
        first.play_and_die(ROLLOUT)
        second = start(world)
        second.play_and_die(ROLLOUT)
        server.restart()
        world.start()
        with successor(world, spool) as agent:
            eventually(lambda: agent.status().adopted == 2, 30)
            world.reaches(3)
            check(world, {first.agent_id: ROLLOUT, second.agent_id: ROLLOUT})


def test_what_lacked_its_rewards_at_a_kill_is_quarantined(world, start, spool):
    """They died with the application; nobody waits for them for ever."""
    dead = start(world)
    dead.play(2, rewarded=False)
    dead.play_and_die(ROLLOUT)
    world.start()
    with successor(world, spool) as agent:
        eventually(lambda: agent.status().adopted == 1, 20)
        world.reaches(2)
        eventually(is_finished(world, dead.agent_id, ROLLOUT), 20)
        said = balance(world, dead.agent_id)
        assert (said.accepted, said.quarantined) == (ROLLOUT + 2, 2)
        check(world, {dead.agent_id: ROLLOUT})


def test_a_reply_that_was_lost_with_the_application_does_not_train_twice(world, start, spool):
    """The entries are in the stream, the application never heard of it and is killed.

    Its successor offers them again under the same numbers.
    """
    with Forwarder(world.url) as way:
        dead = start(world, way.url)
        dead.reports("broker", "up")
        way.mute_from("XADD")
        dead.play(ROLLOUT)
        eventually(lambda: world.broker.call("XLEN", world.keys.traj) > 0)
        assert int(dead.status("unanswered")) > 0
        dead.kill()
    arrived = world.broker.call("XLEN", world.keys.traj)
    world.start()
    with successor(world, spool) as agent:
        eventually(lambda: agent.status().adopted == 1, 20)
        play(agent, ROLLOUT)
        world.reaches(3)
        eventually(lambda: balance(world, dead.agent_id).duplicates == arrived)
        check(world, {dead.agent_id: ROLLOUT, agent.agent_id: ROLLOUT})


def test_a_torn_tail_costs_nothing_that_was_written_before_it(world, start, spool):
    """What a dying disk or machine left half written; the rest is trained."""
    with RedisServer() as server:
        gone = server.url
    dead = start(world, gone)
    dead.play_and_die(ROLLOUT + 1)
    (segment,) = (spool / world.client / dead.agent_id).glob("*.seg")
    data = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(data[:-3])
    world.start()
    with successor(world, spool) as agent:
        eventually(lambda: agent.status().adopted == 1, 20)
        world.reaches(2)
        check(world, {dead.agent_id: ROLLOUT})
        assert balance(world, dead.agent_id).quarantined == 1


def test_of_two_living_agents_one_adopts_and_neither_touches_the_other(world, start, spool):
    """All three share a folder."""
    dead = start(world)
    world.start()
    with successor(world, spool) as one, successor(world, spool) as other:
        dead.play_and_die(ROLLOUT)
        play(one, ROLLOUT)
        play(other, ROLLOUT)
        eventually(lambda: one.status().adopted + other.status().adopted == 1, 20)
        world.reaches(4)
        check(world, {dead.agent_id: ROLLOUT, one.agent_id: ROLLOUT, other.agent_id: ROLLOUT})


def test_a_clean_end_without_a_broker_leaves_everything_to_the_next_start(
    make_world, client_name, spool
):
    """Closing keeps its time; meanwhile the audit shows what it knows of as pending."""
    with RedisServer(aof="always") as server:
        world = make_world(server.url, client_name)
        world.define()
        first = successor(world, spool, high_water_entries=1)
        play(first, ROLLOUT)
        eventually(lambda: first.status().issued == 1)
        eventually(
            lambda: balance(world, first.agent_id).accepted == ROLLOUT,
            ignoring=(UnknownClientError, StopIteration),
        )
        server.kill()
        first.close(timeout_s=0.2)
        assert (first.status().dropped, first.status().spooled) == (0, True)
        server.restart()
        eventually(
            lambda: balance(world, first.agent_id).pending == ROLLOUT, ignoring=(BrokerError,)
        )
        assert audit_client(world.broker, world.keys).closes
        world.start()
        with successor(world, spool) as agent:
            eventually(lambda: agent.status().adopted == 1, 20)
            world.reaches(2)
            check(world, {first.agent_id: ROLLOUT})
