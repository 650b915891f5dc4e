"""The broker comes late, dies, forgets, hangs or is reset; the application does not notice."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.errors import BrokerUnavailableError
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.agent.world import OBS, Sent, World, play

pytestmark = pytest.mark.fault

GENEROUS_CALL_S = 1.0
"""No call waits for a broker; a busy machine may still take its time."""

ATTEMPTS = 8
"""Of two threads; so each of them has tried again and again."""


class Application:
    """Plays episodes and notes the slowest call."""

    def __init__(self, agent: StreamAgent) -> None:
        self.agent = agent
        self.episodes = 0
        self.slowest_s = 0.0

    def play(self, episodes: int) -> None:
        """So many episodes, as fast as they go."""
        for _ in range(episodes):
            begun = time.monotonic()
            play(self.agent, 1, tag=self.episodes)
            self.episodes += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)

    def play_for(self, seconds: float) -> None:
        """Episodes for that long, at the pace of an application."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.play(1)
            time.sleep(0.002)


@contextlib.contextmanager
def turned_away(url: str) -> Iterator[list[socket.socket]]:
    """Whoever calls where the server of `url` was is hung up on; the calls so far."""
    calls: list[socket.socket] = []

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                call, _ = door.accept()
                call.close()
                calls.append(call)

    with socket.create_server(("127.0.0.1", urlsplit(url).port or 0)) as door:
        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            yield calls
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def check_at_least_once(sent: list[Sent], episodes: int) -> None:
    """Every number from 1 is there, first sights in order, duplicates identical but for floors."""
    first: dict[int, Sent] = {}
    for entry in sent:
        before = first.setdefault(entry.address.seq, entry)
        assert strip(before) == strip(entry)
    assert sorted(first) == list(range(1, episodes + 1))
    assert [first[seq].trajectory.rewards[0] for seq in sorted(first)] == list(range(episodes))


def strip(entry: Sent) -> dict[bytes, bytes]:
    """The entry without what an offer may change."""
    return {name: value for name, value in entry.fields.items() if name != b"floor"}


def test_a_broker_that_comes_late_gets_everything(client_name: str):
    """Construction and decisions do not need it."""
    server = RedisServer()
    server.start()
    url = server.url
    server.stop()
    try:
        world = World(url, client_name)
        begun = time.monotonic()
        with world.agent() as agent:
            app = Application(agent)
            app.play(20)
            assert time.monotonic() - begun < GENEROUS_CALL_S
            eventually(lambda: agent.status().broker == "down")
            assert (agent.status().queued, agent.version) == (20, 0)
            assert agent.status().last_error != ""
            server.restart()
            assert agent.flush(20)
            eventually(world.registered)
        check_at_least_once(world.sent(), 20)
        world.close()
    finally:
        server.close()


def test_a_broker_killed_and_restarted_mid_run_gets_everything(client_name: str):
    """Three times, under a running application."""
    with RedisServer(aof="always") as server:
        world = World(server.url, client_name)
        with world.agent(retain_s=3.0) as agent:
            app = Application(agent)
            for _ in range(3):
                app.play_for(0.3)
                server.kill()
                app.play_for(0.3)
                server.restart()
                app.play_for(0.3)
            assert agent.flush(30)
            assert app.slowest_s < GENEROUS_CALL_S
            assert agent.status().dropped == 0
            assert agent.status().issued == app.episodes
        check_at_least_once(world.sent(), app.episodes)
        world.close()


def test_a_broker_that_forgets_everything_is_given_everything_retained(client_name: str):
    """No append-only file: the answered entries are gone, and are offered again."""
    with RedisServer(aof=None) as server:
        world = World(server.url, client_name)
        with world.agent(retain_s=60.0) as agent:
            app = Application(agent)
            app.play(30)
            assert agent.flush(10)
            server.kill()
            server.restart()
            # Without anything new to send: the idle connection is tried, too.
            eventually(lambda: agent.status().resent == 30, 20)
            assert agent.flush(20)
            eventually(world.registered, ignoring=(BrokerUnavailableError,))
            assert sorted(world.numbers(agent.agent_id)) == list(range(1, 31))
        world.close()


def test_a_flushed_broker_is_registered_at_and_filled_again(client_name: str):
    """The connection stays, so nothing but the missing registration tells."""
    with RedisServer() as server:
        world = World(server.url, client_name)
        with world.agent(retain_s=60.0) as agent:
            play(agent, 10)
            assert agent.flush(10)
            world.broker.call("FLUSHALL")
            eventually(world.registered)
            eventually(lambda: sorted(world.numbers(agent.agent_id)) == list(range(1, 11)))
            assert agent.status().broker == "up"
        world.close()


def test_a_new_lineage_is_offered_everything_retained(world: World):
    """Whether an operator reset the client or the broker lost its last writes."""
    with world.agent(retain_s=60.0) as agent:
        play(agent, 4)
        assert agent.flush()
        world.broker.hash_set(world.keys.spec, {"lineage": "0123456789abcdef"})
        eventually(lambda: agent.status().resent == 4)
        assert agent.flush()
        assert world.numbers(agent.agent_id) == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_head_that_disappears_or_changes_its_lineage_brings_everything_retained(world: World):
    """Its watermarks went with it."""
    world.broker.hash_set(world.keys.head, {"lineage": "first"})
    with world.agent(retain_s=60.0) as agent:
        play(agent, 2)
        assert agent.flush()
        polled = world.heartbeat(agent.agent_id)
        eventually(lambda: world.heartbeat(agent.agent_id) != polled)
        world.broker.unlink(world.keys.head)
        eventually(lambda: agent.status().resent == 2)


def test_a_broker_that_hangs_does_not_hold_the_application_up(client_name: str):
    """Connections stay open and nothing answers: the worst kind."""
    with RedisServer() as server:
        world = World(server.url, client_name)
        with world.agent() as agent:
            app = Application(agent)
            app.play(5)
            assert agent.flush(10)
            server.pause()
            app.play_for(0.5)
            eventually(lambda: agent.status().broker == "down", 20)
            app.play(5)
            server.resume()
            assert agent.flush(30)
            assert app.slowest_s < GENEROUS_CALL_S
        check_at_least_once(world.sent(), app.episodes)
        world.close()


def test_connections_that_are_cut_are_made_again(world: World):
    """An operator, or a proxy, closes them."""
    with world.agent() as agent:
        eventually(lambda: agent.status().broker == "up")
        play(agent, 5)
        for kind in ("normal", "pubsub"):
            world.broker.call("CLIENT", "KILL", "TYPE", kind)
        play(agent, 5, tag=5)
        assert agent.flush(20)
        check_at_least_once(world.sent(), 10)


def test_a_reconnect_offers_everything_retained_again(world: World):
    """It may be another server that answers, which lacks the last writes: ask no questions."""
    with world.agent(retain_s=60.0) as agent:
        play(agent, 3)
        assert agent.flush()
        world.broker.call("CLIENT", "KILL", "TYPE", "normal")
        eventually(lambda: agent.status().resent == 3)
        assert agent.flush()
        assert world.numbers(agent.agent_id) == [1, 2, 3, 1, 2, 3]


def test_closing_under_an_outage_takes_its_timeout_and_no_longer(client_name: str, caplog):
    """What is lost with the process is named."""
    with RedisServer() as server:
        world = World(server.url, client_name)
        agent = world.agent()
        server.kill()
        play(agent, 3)
        begun = time.monotonic()
        agent.close(timeout_s=0.3)
        assert time.monotonic() - begun < 0.3 + 2 * GENEROUS_CALL_S
        # Offered in vain or never offered, as far as it had come with its registration.
        assert "dropped=3" in caplog.text or "undelivered=3" in caplog.text
        assert agent.status().closed
        world.close()


def test_the_log_says_once_that_the_broker_is_away(client_name: str, caplog):
    """Not once per attempt."""
    with RedisServer() as server:
        world = World(server.url, client_name)
        with world.agent() as agent:
            agent.request_for_action(None, OBS)
            eventually(lambda: agent.status().broker == "up")
            server.kill()
            eventually(lambda: "agent.refresher.down" in caplog.text)
            eventually(lambda: "agent.sender.down" in caplog.text)
            with turned_away(server.url) as attempts:
                eventually(lambda: len(attempts) >= ATTEMPTS, 20)
            lines = [record.message for record in caplog.records if ".down" in record.message]
            assert len(lines) == 2
            agent.close(timeout_s=0.1)
        world.close()
