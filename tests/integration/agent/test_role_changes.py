"""A server goes back in time and cuts no connection: it takes its replica's older writes over."""

import re
import time
from collections.abc import Callable, Iterator

import pytest

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.agent.world import World, play

pytestmark = pytest.mark.fault


class Pair:
    """A primary that agents know, and a replica of it that has fallen behind."""

    def __init__(self, primary: RedisServer, other: RedisServer, client: str) -> None:
        self.world = World(primary.url, client)
        self._ports = (primary.port, other.port)
        self._primary = self.world.broker
        self._other = Broker(BrokerAddress.from_url(other.url), name="other")
        for broker, master in ((self._primary, other), (self._other, primary)):
            found = re.search(r":([^:@/]+)@", master.url)
            assert found is not None
            broker.call("CONFIG", "SET", "masterauth", found[1])
            broker.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")

    def _lengths(self) -> set[int]:
        return {int(b.call("XLEN", self.world.keys.traj)) for b in (self._primary, self._other)}

    def leave_behind(self) -> None:
        """The other has what there is now, and nothing that comes."""
        self._other.call("REPLICAOF", "127.0.0.1", self._ports[0])
        eventually(lambda: len(self._lengths()) == 1)
        self._other.call("REPLICAOF", "NO", "ONE")

    def become_its_replica(self) -> None:
        """The primary forgets what the other has not; its clients stay connected."""
        self._primary.call("REPLICAOF", "127.0.0.1", self._ports[1])
        eventually(lambda: len(self._lengths()) == 1)

    def become_primary(self) -> None:
        """As before, with what the other had."""
        self._primary.call("REPLICAOF", "NO", "ONE")

    def numbers(self, agent_id: str) -> set[int]:
        """What the primary has."""
        return set(self.world.numbers(agent_id))

    def close(self) -> None:
        """Both connections."""
        self._other.close()
        self.world.close()


@pytest.fixture
def pair(client_name: str) -> Iterator[Pair]:
    """Two servers."""
    with RedisServer(aof=None) as primary, RedisServer(aof=None) as other:
        found = Pair(primary, other, client_name)
        yield found
        found.close()


def nothing_else(_pair: Pair) -> None:
    """Befalls it."""


def cut_notices(pair: Pair) -> None:
    """The refresher connects again; the sender's connection knows nothing of it."""
    pair.world.broker.call("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.mark.parametrize("meanwhile", [nothing_else, cut_notices])
def test_what_a_primary_forgot_as_a_replica_is_offered_again(
    pair: Pair, meanwhile: Callable[[Pair], None]
):
    """Nothing new is sent and no connection of the sender breaks: it looks by itself."""
    with pair.world.agent(retain_s=60.0) as agent:
        play(agent, 3)
        assert agent.flush(5)
        pair.leave_behind()
        play(agent, 5)
        assert agent.flush(5)
        pair.become_its_replica()
        meanwhile(pair)
        pair.become_primary()
        eventually(lambda: pair.numbers(agent.agent_id) == set(range(1, 9)), 10)
        assert agent.status().server_changes > 0


def test_a_refusal_of_a_replica_brings_everything_retained(pair: Pair):
    """Also before it is time to look at the server."""
    with pair.world.agent(retain_s=60.0, heartbeat_s=3600.0) as agent:
        play(agent, 3)
        assert agent.flush(5)
        pair.leave_behind()
        play(agent, 5)
        assert agent.flush(5)
        pair.become_its_replica()
        play(agent, 1)
        eventually(lambda: agent.status().broker == "refusing")
        pair.become_primary()
        eventually(lambda: pair.numbers(agent.agent_id) == set(range(1, 10)), 10)
        eventually(lambda: agent.status().broker == "up")


def test_a_replica_that_takes_writes_is_sent_nothing(pair: Pair):
    """It would answer each, and lose them all with the next copy of its primary."""
    pair.world.broker.call("CONFIG", "SET", "replica-read-only", "no")
    pair.leave_behind()
    pair.become_its_replica()
    with pair.world.agent() as agent:
        play(agent, 3)
        eventually(lambda: agent.status().broker == "refusing")
        assert "primary's URL" in agent.status().last_error
        assert not agent.flush(0.5)
        pair.become_primary()
        assert agent.flush(10)
        assert pair.numbers(agent.agent_id) == {1, 2, 3}


def test_nothing_is_let_go_before_the_server_is_known_to_be_the_same(world: World):
    """A connection that answers proves a server, not that it is the one that took the entries."""
    with world.agent(retain_s=0.05, heartbeat_s=3600.0) as agent:
        until = time.monotonic() + 0.5  # ten times as long as it is kept
        while time.monotonic() < until:
            play(agent, 1)
            assert agent.flush(5)
        assert agent.status().issued > 1
        assert agent.status().floor == 1
