"""Pauses between attempts grow, stay bounded, and differ between agents."""

import random

from rl4sys_stream.agent.runtime import new_agent_id
from rl4sys_stream.agent.session import FIRST_PAUSE_S, LONGEST_PAUSE_S, Backoff, Session
from rl4sys_stream.wire.trajectory import EntryAddress, address_fields


def test_pauses_double_up_to_a_limit_and_start_over_after_a_success():
    """With jitter of half either way."""
    backoff = Backoff(random.Random(1))
    pauses = [backoff.next_s() for _ in range(12)]
    assert FIRST_PAUSE_S / 2 <= pauses[0] <= FIRST_PAUSE_S * 1.5
    assert max(pauses) <= LONGEST_PAUSE_S * 1.5
    assert min(pauses[-3:]) >= LONGEST_PAUSE_S / 2
    backoff.reset()
    assert backoff.next_s() <= FIRST_PAUSE_S * 1.5


def test_agents_do_not_march_in_step():
    """A thousand agents must not all knock at a restarted broker in the same instant."""
    first, second = Backoff(random.Random("a")), Backoff(random.Random("b"))
    assert [first.next_s() for _ in range(5)] != [second.next_s() for _ in range(5)]


def test_a_refused_registration_shows_before_anything_else():
    """Whatever the connection's state is, nothing will be sent."""
    session = Session()
    session.sender_state, session.registered = "up", True
    assert session.state == "up"
    session.registered, session.refused = False, "another spec"
    assert session.state == "held"


def test_agent_ids_are_unique_and_fit_the_wire(monkeypatch):
    """Whatever the host is called."""
    monkeypatch.setattr("socket.gethostname", lambda: "bücher rechner." * 10)
    ids = {new_agent_id() for _ in range(100)}
    assert len(ids) == 100
    assert max(map(len, ids)) <= 64
    for agent_id in ids:
        address_fields(EntryAddress(agent_id, 1, 1))
