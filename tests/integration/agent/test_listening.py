"""One subscription for all agents of a process: who shares it, who does not, and when it ends."""

import logging
import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.agent.announcement import Announcement
from rl4sys_stream.agent.follower import PolicyFollower
from rl4sys_stream.agent.listener import Listeners, shared_listeners
from rl4sys_stream.agent.session import Backoff, Session
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import FOLLOW, Selection
from rl4sys_stream.broker.steering import Cause, pin
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.model_store.notice import Notice
from rl4sys_stream.policy.policy import UniformPolicy
from rl4sys_stream.telemetry import StateLog
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.agent.forks import forking, in_child
from tests.integration.agent.test_notices import SLOW, acting, notice_of, preferring, settled, tell
from tests.integration.agent.world import OBS, SPEC, World

pytestmark = pytest.mark.integration

CAUSE = Cause("alice@ops", 1, "wait")


@contextmanager
def team(world: World, count: int, *, poll_interval_s: float = SLOW) -> Iterator[list[StreamAgent]]:
    """Agents of this process that act by version 1."""
    with ExitStack() as stack:
        agents = [
            stack.enter_context(world.agent(poll_interval_s=poll_interval_s)) for _ in range(count)
        ]
        acting(world, agents[0])
        eventually(lambda: all_act(agents, 1) and all(map(settled, agents)))
        yield agents


def all_act(agents: Sequence[StreamAgent], version: int) -> bool:
    """Whether that version acts in each of them."""
    return {agent.version for agent in agents} == {version}


def is_up(agent: StreamAgent) -> bool:
    """Whether it is at work with the broker."""
    return agent.status().broker == "up"


def subscriptions(world: World) -> int:
    """How many connections listen to the client's channel."""
    reply = world.broker.call("PUBSUB", "NUMSUB", world.keys.updates)
    return int(reply[world.keys.updates.encode()] if isinstance(reply, dict) else reply[1])


def listening_threads() -> set[threading.Thread]:
    """Of all clients."""
    return {one for one in threading.enumerate() if one.name == "rl4sys-agent-notices"}


def test_agents_of_one_process_share_a_subscription_and_all_act_by_its_notices(world: World):
    """Each notice is made into a model and a policy once, however many act by it."""
    before = listening_threads()
    with team(world, 10) as agents:
        assert subscriptions(world) == 1
        assert len(listening_threads() - before) == 1
        tell(world, notice_of(1, 2))
        eventually(lambda: all_act(agents, 2))
        assert len({id(agent._slot.model) for agent in agents}) == 1
        assert len({id(agent._slot.policy) for agent in agents}) == 1
        assert {agent.status().last_error for agent in agents} == {""}


def test_a_pinned_agent_stays_where_it_is_while_the_others_follow(world: World):
    """Rules are each agent's own, whoever listens."""
    with team(world, 3) as agents:
        held, *others = agents
        pin(world.broker, world.keys, 1, Selection(held.agent_id), CAUSE)
        eventually(lambda: held.status().control == "pinned")
        tell(world, notice_of(1, 2))
        eventually(lambda: all_act(others, 2))
        assert held.version == 1


def test_an_agent_that_has_another_version_looks_at_the_head(world: World):
    """A diff leads on only whoever has its base."""
    with team(world, 2) as agents:
        tell(world, notice_of(1, 2))
        eventually(lambda: all_act(agents, 2))
        with world.agent(poll_interval_s=SLOW) as late:
            eventually(lambda: late.version == 1 and settled(late))
            world.publish(4, preferring(0).weights, notice=False)
            tell(world, notice_of(2, 3))
            eventually(lambda: all_act(agents, 3))
            eventually(lambda: late.version == 4)
            assert subscriptions(world) == 1


class Slow(Broker):
    """Whose reads of a model take until something else has happened."""

    meanwhile: Callable[[], object]

    def hash_get_each(
        self, requests: Sequence[tuple[str, Sequence[str]]]
    ) -> list[list[bytes | None]]:
        """As it was asked for, told too late."""
        found = super().hash_get_each(requests)
        self.meanwhile()
        return found


@pytest.fixture
def reading(world: World) -> Iterator[tuple[Slow, PolicyFollower, PolicySlot]]:
    """A broker, and a follower of it whose agent acts by version 1."""
    slot = PolicySlot(UniformPolicy(SPEC.actions))
    with Slow(world.broker.address, name="slow") as broker:
        broker.meanwhile = lambda: None
        follower = PolicyFollower(
            broker,
            keys=world.keys,
            slot=slot,
            session=Session(),
            states=StateLog(logging.getLogger("test")),
            clock=SystemClock(),
        )
        follower.spec = SPEC
        world.publish(1, preferring(1).weights)
        follower.take((b"1", b"1:worker"), FOLLOW)
        yield broker, follower, slot


def announce(world: World, notice: Notice) -> Announcement:
    """As the listener hears it."""
    return Announcement(notice.to_bytes(), world.broker.address, world.keys)


def test_a_read_that_a_notice_has_overtaken_changes_nothing(world: World, reading):
    """The refresher was reading version 2 when the listener went on to version 3."""
    broker, follower, slot = reading
    world.publish(2, preferring(2).weights)

    def listen() -> None:
        assert follower.follow(announce(world, notice_of(1, 2)))
        assert follower.follow(announce(world, notice_of(2, 3)))

    broker.meanwhile = listen
    follower.take((b"2", b"1:worker"), FOLLOW)
    assert slot.policy.version == 3
    assert follower.must_look


def test_a_model_that_is_told_after_a_pin_is_not_followed_before_the_pin_is_read(
    world: World, reading
):
    """Not even for a moment: a pinned agent never acts by what came later."""
    _, follower, slot = reading
    follower.look()  # as after the notice of a pin
    assert not follower.follow(announce(world, notice_of(1, 2)))
    assert slot.policy.version == 1
    follower.answer(follower.asked)
    assert follower.follow(announce(world, notice_of(1, 2)))
    assert slot.policy.version == 2


def test_a_notice_of_what_an_agent_has_asks_for_no_look(world: World, reading):
    """It was faster by itself; a hundred agents that look again would be a load for nothing."""
    _, follower, slot = reading
    assert follower.follow(announce(world, notice_of(1, 2)))
    assert follower.follow(announce(world, notice_of(1, 2)))
    assert follower.follow(announce(world, notice_of(0, 1)))
    assert not follower.follow(announce(world, notice_of(1, 2, token="2:other")))
    assert slot.policy.version == 2


def test_an_agent_that_has_left_is_not_touched_any_more(world: World, reading):
    """The listener may be in the middle of a notice when it is closed."""
    _, follower, slot = reading
    follower.leave()
    assert follower.follow(announce(world, notice_of(1, 2)))
    assert slot.policy.version == 1


def test_closing_one_agent_leaves_the_others_their_listener(world: World):
    """And the last one takes it along: no thread and no connection is left."""
    before = listening_threads()
    with team(world, 3) as agents:
        first, *others = agents
        first.close()
        tell(world, notice_of(1, 2))
        eventually(lambda: all_act(others, 2))
        assert first.version == 1
        assert subscriptions(world) == 1
    assert subscriptions(world) == 0
    assert listening_threads() <= before


def test_an_agent_after_the_last_one_gets_a_listener_of_its_own(world: World):
    """Applications open and close agents in turn."""
    for _ in range(2):
        with world.agent(poll_interval_s=SLOW) as agent:
            eventually(partial(is_up, agent))
            assert subscriptions(world) == 1


def test_another_client_has_another_listener(world: World):
    """Its notices are others."""
    other = World(world.url, f"test_{secrets.token_hex(6)}")
    with world.agent() as one, other.agent() as two:
        eventually(lambda: one.status().broker == two.status().broker == "up")
        assert (subscriptions(world), subscriptions(other)) == (1, 1)
    other.close()


def test_agents_with_another_login_do_not_share(world: World):
    """What one user may hear is not for another."""
    user = world.client
    world.broker.call("ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all")
    place = urlsplit(world.url)
    theirs = World(f"redis://{user}:secret@{place.hostname}:{place.port}", world.client)
    try:
        with world.agent() as one, theirs.agent() as two, theirs.agent() as three:
            agents = (one, two, three)
            eventually(lambda: {agent.status().broker for agent in agents} == {"up"})
            assert subscriptions(world) == 2
    finally:
        theirs.close()
        world.broker.call("ACL", "DELUSER", user)


def test_a_subscription_that_is_cut_is_made_again_and_what_was_missed_is_read(world: World):
    """No agent waits for its next poll."""
    with team(world, 2) as agents:
        world.publish(2, preferring(2).weights, notice=False)
        world.broker.call("CLIENT", "KILL", "TYPE", "pubsub")
        eventually(lambda: all_act(agents, 2))
        eventually(lambda: {agent.status().broker for agent in agents} == {"up"})
        tell(world, notice_of(2, 3))
        eventually(lambda: all_act(agents, 3))
        assert subscriptions(world) == 1


def subscribers(world: World) -> set[bytes]:
    """Ids of the connections that listen, of any client."""
    lines = world.broker.call("CLIENT", "LIST", "TYPE", "pubsub").splitlines()
    return {line.split()[0] for line in lines}


def test_a_broker_that_does_not_answer_an_agent_is_subscribed_at_anew(client_name: str):
    """A connection that only listens may never learn that nobody is there any more."""
    with RedisServer() as server:
        world = World(server.url, client_name)
        with world.agent() as agent:
            eventually(lambda: agent.status().broker == "up")
            before = subscribers(world)
            server.pause()
            eventually(lambda: agent.status().broker == "down")
            server.resume()
            eventually(lambda: agent.status().broker == "up")
            assert len(subscribers(world)) == 1
            assert subscribers(world) != before
        world.close()


@forking
def test_a_forked_child_listens_for_itself(world: World):
    """Threads do not survive a fork, and two processes cannot read one connection."""
    with team(world, 2) as agents:

        def child() -> None:
            for agent in agents:
                agent.request_for_action(None, OBS)
            eventually(lambda: {agent.status().broker for agent in agents} == {"up"})
            assert subscriptions(world) == 2
            tell(world, notice_of(1, 2))
            eventually(lambda: all_act(agents, 2))
            for agent in agents:
                agent.close()
            assert listening_threads() == set()

        assert in_child(child) == 0
        eventually(lambda: all_act(agents, 2))
        eventually(lambda: subscriptions(world) == 1)
        tell(world, notice_of(2, 3))
        eventually(lambda: all_act(agents, 3))


@forking
def test_a_fork_while_an_agent_joins_leaves_no_lock_behind(world: World):
    """Whoever held it does not exist in the child."""
    with world.agent() as agent, shared_listeners()._lock:

        def child() -> None:
            threading.Timer(20, os._exit, (3,)).start()  # instead of hanging for ever
            agent.request_for_action(None, OBS)
            agent.close()

        assert in_child(child) == 0


class Witness:
    """A follower that notes what it is told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.heard = 0
        self.looks = 0
        self.fails = fails

    def follow(self, announcement: Announcement) -> bool:
        """Take it, or fail."""
        if self.fails:
            raise ZeroDivisionError
        self.heard += 1
        return True

    def look(self) -> None:
        """Note it."""
        self.looks += 1

    def wake(self) -> None:
        """That is all the same to it."""


def test_a_follower_that_fails_keeps_nothing_from_the_others(world: World, caplog):
    """It is told to look at the head; the subscription stays."""
    listeners, bad, good = Listeners(), Witness(fails=True), Witness()
    join = partial(
        listeners.join,
        address=world.broker.address,
        keys=world.keys,
        timeout_s=5.0,
        clock=SystemClock(),
        backoff=Backoff(random.Random(1)),
    )
    listener = join(bad)
    assert join(good) is listener
    eventually(lambda: listener.line.epoch == 1)
    tell(world, notice_of(1, 2))
    eventually(lambda: good.heard == 1)
    eventually(lambda: bad.looks == 1)
    assert listener.line.epoch == 1
    assert "agent.notice_failed" in caplog.text
    listeners.leave(listener, bad)
    assert subscriptions(world) == 1
    listeners.leave(listener, good)
    assert subscriptions(world) == 0
