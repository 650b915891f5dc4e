"""Agents that went long ago: their books stay in the sum, and nothing of them can come back."""

import json
from typing import Any

import pytest

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.past import read_past
from rl4sys_stream.broker.registry import AgentHeartbeat, read_heartbeats, write_heartbeat
from rl4sys_stream.broker.retire import retire_agents

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
    return retire_agents(broker, keys, wall_ms=NOW_MS, after_ms=WEEK_MS)


def test_the_sums_are_the_same_before_and_after(broker, keys):
    """Also of one that died with what it had not delivered."""
    _agent(broker, keys, "closed")
    _agent(broker, keys, "dead", settled=2, closed=False, accepted=5, floor=3, queued=1, dropped=1)
    before = audit_client(broker, keys, now_ms=NOW_MS)
    assert _retire(broker, keys) == 2
    after = audit_client(broker, keys, now_ms=NOW_MS)
    assert after.agents == ()
    names = ("accepted", "trained", "dropped", "lost", "skipped", "quarantined", "duplicates")
    assert [after.total(name) for name in names] == [before.total(name) for name in names]
    assert [before.total(name) for name in names] == [8, 5, 1, 2, 0, 0, 2]
    assert (after.steps, after.accepted_steps) == (before.steps, before.accepted_steps)
    assert read_past(broker, keys).agents == 2
    assert broker.hash_all(keys.seq) == broker.hash_all(keys.agents) == {}


@pytest.mark.parametrize(
    "said",
    [
        {"weeks": 0.5},
        {"spooled": True},
        {"weeks": 50, "closed": False},
        {"accepted": 4, "issued": 4, "floor": 5},
    ],
    ids=["lately", "its spool may come back", "its clock is wrong", "its balance is open"],
)
def test_whoever_may_come_back_or_is_not_accounted_for_is_kept(broker, keys, said):
    """A forgotten number would be trained on again, and a hole would be hidden."""
    _agent(broker, keys, "agent", **said)
    assert _retire(broker, keys) == 0
    assert "agent" in read_heartbeats(broker, keys)


def test_whoever_may_still_have_entries_in_the_stream_is_kept(broker, keys):
    """Until they are settled."""
    _agent(broker, keys, "agent", settled=2, closed=False, floor=3)
    broker.call("XADD", keys.traj, "*", "agent_id", "agent", "seq", "3", "floor", "3")
    assert _retire(broker, keys) == 0
    broker.unlink(keys.traj)
    assert _retire(broker, keys) == 1
