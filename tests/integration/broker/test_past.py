"""Agents that went long ago: their books stay in the sum, and nothing of them can come back."""

import json
from typing import Any

import msgspec
import pytest

from rl4sys_stream.broker import audit, retire
from rl4sys_stream.broker.audit import AuditReport, audit_client
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Counts, Head, head_fields
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import AgentLedger, Outcome, read_ledgers
from rl4sys_stream.broker.past import read_past
from rl4sys_stream.broker.registry import AgentHeartbeat, read_heartbeats, write_heartbeat
from rl4sys_stream.broker.retire import retire_agents
from rl4sys_stream.broker.scripts import run_script
from rl4sys_stream.errors import BrokerError, FencedError

pytestmark = pytest.mark.integration

WEEK_MS = 7 * 24 * 3_600_000
NOW_MS = 100 * WEEK_MS


@pytest.fixture
def keys(broker, client_name):
    """A client that is registered."""
    keys = ClientKeys(client_name)
    spec = {
        "algorithm": "PPO",
        "observation_space": {"type": "box", "shape": [2]},
        "action_space": {"type": "discrete", "n": 2},
        "network_architecture": {},
    }
    broker.call("SET", keys.fence, "1:x")
    fields = {"spec": json.dumps(spec), "lineage": "l", "created_ms": NOW_MS - 10 * WEEK_MS}
    broker.hash_set(keys.spec, fields)
    return keys


def _agent(
    broker: Broker,
    keys: ClientKeys,
    agent_id: str,
    *,
    settled: int = 3,
    weeks: float = 2,
    **said: Any,
) -> None:
    counts: dict[str, Any] = {
        "accepted": 3,
        "issued": 3,
        "floor": 4,
        "steps": 30,
        "closed": True,
        **said,
    }
    time_ms = NOW_MS - int(weeks * WEEK_MS)
    write_heartbeat(broker, keys, AgentHeartbeat(agent_id=agent_id, time_ms=time_ms, **counts))
    ledger = {"watermark": settled, "trained": settled, "steps": 10 * settled, "duplicate": 1}
    broker.hash_set(keys.seq, {agent_id: json.dumps(ledger)})


def _retire(broker: Broker, keys: ClientKeys) -> int:
    token = (broker.call("GET", keys.fence) or b"").decode()
    return retire_agents(broker, keys, token=token, wall_ms=NOW_MS, after_ms=WEEK_MS)


def _totals(report: AuditReport) -> dict[str, int]:
    names = ("accepted", "trained", "dropped", "lost", "skipped", "quarantined", "duplicates")
    return {
        **{name: report.total(name) for name in names},
        "steps": report.steps,
        "accepted_steps": report.accepted_steps,
    }


def test_the_sums_are_the_same_before_and_after(broker, keys):
    """Also of one that dropped some, and of one that never sent any; killed ones are kept."""
    _agent(broker, keys, "closed")
    _agent(broker, keys, "full", accepted=5, dropped=1, quarantined=1)
    _agent(broker, keys, "dead", settled=2, closed=False, accepted=5, floor=3, queued=1, dropped=1)
    silent = AgentHeartbeat(agent_id="silent", accepted=1, dropped=1, closed=True)
    write_heartbeat(broker, keys, silent)
    before = audit_client(broker, keys, now_ms=NOW_MS)
    assert _retire(broker, keys) == 3
    after = audit_client(broker, keys, now_ms=NOW_MS)
    assert [agent.agent_id for agent in after.agents] == ["dead"]
    assert after.closes
    assert _totals(after) == _totals(before)
    assert list(_totals(before).values()) == [14, 8, 3, 2, 0, 1, 3, 80, 90]
    assert read_past(broker, keys).agents == 3
    assert set(read_heartbeats(broker, keys)) == {"dead"}
    assert _retire(broker, keys) == 0


def test_a_number_of_a_retired_agent_is_a_duplicate_for_ever(broker, keys):
    """A spool that a power loss brought back offers it again, years later."""
    _agent(broker, keys, "agent")
    assert _retire(broker, keys) == 1
    ledger = AgentLedger(read_ledgers(broker, keys)["agent"])
    assert [ledger.is_settled(number) for number in (1, 2, 3, 4)] == [True, True, True, False]
    ledger.settle(3, Outcome.DUPLICATE)
    broker.hash_set(keys.seq, {"agent": msgspec.json.encode(ledger.record())})
    (found,) = audit_client(broker, keys, now_ms=NOW_MS).agents
    assert (found.accepted, found.trained, found.duplicates, found.closes) == (0, 0, 1, True)


def test_a_report_that_comes_after_the_agent_was_retired_is_not_added_up_again(broker, keys):
    """Whoever adopted its spool was killed between the last report and the folder's removal."""
    _agent(broker, keys, "agent")
    report = broker.hash_all(keys.agents)
    before = _totals(audit_client(broker, keys, now_ms=NOW_MS))
    assert _retire(broker, keys) == 1
    broker.hash_set(keys.agents, report)
    assert _totals(audit_client(broker, keys, now_ms=NOW_MS)) == before
    assert _retire(broker, keys) == 1
    assert _totals(audit_client(broker, keys, now_ms=NOW_MS)) == before
    assert read_past(broker, keys).agents == 1


def test_a_worker_that_was_replaced_retires_nobody(broker, keys):
    """It may have been paused just before it, and its successor has written since."""
    _agent(broker, keys, "agent")
    broker.call("SET", keys.fence, "2:new")
    before = broker.hash_all(keys.seq)
    with pytest.raises(FencedError):
        retire_agents(broker, keys, token="1:old", wall_ms=NOW_MS, after_ms=WEEK_MS)
    assert broker.hash_all(keys.seq) == before
    assert not broker.hash_all(keys.past)


@pytest.mark.parametrize("name", ["seq", "agents"])
def test_books_that_changed_since_they_were_read_are_left_alone(broker, keys, monkeypatch, name):
    """What was added up is not what would be removed."""
    _agent(broker, keys, "agent")

    def change(*arguments):
        broker.hash_set(getattr(keys, name), {"agent": b'{"agent_id": "agent", "watermark": 4}'})
        return run_script(*arguments)

    monkeypatch.setattr(retire, "run_script", change)
    assert _retire(broker, keys) == 0
    assert not broker.hash_all(keys.past)


def test_sums_that_are_no_numbers_are_refused_before_anything_is_written(broker, keys):
    """A script has no rollback."""
    _agent(broker, keys, "agent")
    broker.hash_set(keys.past, {"agents": 1, "steps": "many"})
    before = broker.hash_all(keys.past), broker.hash_all(keys.seq), broker.hash_all(keys.agents)
    with pytest.raises(BrokerError, match="BADPAST steps"):
        _retire(broker, keys)
    assert before == (
        broker.hash_all(keys.past),
        broker.hash_all(keys.seq),
        broker.hash_all(keys.agents),
    )


def test_an_agent_that_is_retired_during_an_audit_is_counted_once(broker, keys, monkeypatch):
    """Between the reports and the ledgers; it is in the sums by then."""
    _agent(broker, keys, "agent")
    _agent(broker, keys, "silent", settled=0, accepted=1, issued=0, floor=1, dropped=1)
    broker.call("HDEL", keys.seq, "silent")
    before = _totals(audit_client(broker, keys, now_ms=NOW_MS))

    def read_reports(*arguments):
        found = read_heartbeats(*arguments)
        assert _retire(broker, keys) == 2
        return found

    monkeypatch.setattr(audit, "read_heartbeats", read_reports)
    assert _totals(audit_client(broker, keys, now_ms=NOW_MS)) == before


def test_what_workers_refused_of_past_agents_is_no_entry_without_a_name(broker, keys):
    """Nor does what agents gave up hide one."""
    _agent(broker, keys, "agent", accepted=5, quarantined=2)
    ledger = {"watermark": 3, "trained": 2, "quarantined": 1}
    broker.hash_set(keys.seq, {"agent": json.dumps(ledger)})
    head = Head(1, "1:x", "l", "m", "c", (), counts=Counts(quarantined=2))
    broker.hash_set(keys.head, {"commit": "x", **head_fields(head)})
    assert audit_client(broker, keys, now_ms=NOW_MS).anonymous == 1
    assert _retire(broker, keys) == 1
    assert audit_client(broker, keys, now_ms=NOW_MS).anonymous == 1


@pytest.mark.parametrize(
    "said",
    [
        {"weeks": 0.5},
        {"spooled": True},
        {"closed": False},
        {"closed": False, "settled": 2, "floor": 3},
        {"accepted": 4, "issued": 4, "floor": 5},
    ],
    ids=[
        "lately",
        "its spool may come back",
        "it may be cut off",
        "and hold more",
        "its balance is open",
    ],
)
def test_whoever_may_come_back_or_is_not_accounted_for_is_kept(broker, keys, said):
    """A forgotten number would be trained on again, and a hole would be hidden."""
    _agent(broker, keys, "agent", **said)
    assert _retire(broker, keys) == 0
    assert "agent" in read_heartbeats(broker, keys)
