"""Forgetting agents that are gone for good, once their books are closed and added up."""

import redis

from rl4sys_stream.broker.audit import AgentBalance, balance_agent
from rl4sys_stream.broker.connection import Broker, translate
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord, read_ledgers
from rl4sys_stream.broker.registry import AgentHeartbeat, read_heartbeats

__all__ = ["retire_agents"]


def retire_agents(broker: Broker, keys: ClientKeys, *, wall_ms: int, after_ms: int) -> int:
    """Add up the books of agents that are long gone, and forget them one by one.

    Only for the holder of the lease, before it reads the ledgers: a number that is forgotten would
    be taken in again. So nothing is forgotten of an agent whose entries may still be in the stream,
    or in a spool that another agent may adopt; nor of one whose balance is open, which would hide
    it.

    Args:
        broker: Where they are.
        keys: Of the client.
        wall_ms: Now.
        after_ms: How long an agent must have been silent.

    Returns:
        How many were retired.

    Raises:
        BrokerError: Safe to call again.
        WireFormatError: If a ledger does not decode.
    """
    (created,) = broker.hash_get(keys.spec, "created_ms")
    created_ms = int(created) if created and created.isdigit() else 0
    ledgers = read_ledgers(broker, keys)
    stream_is_empty = int(broker.call("XLEN", keys.traj)) == 0
    count = 0
    for agent_id, said in read_heartbeats(broker, keys).items():
        ledger = ledgers.get(agent_id, LedgerRecord())
        # A clock from before the client is wrong, and its agent may be alive.
        silent = wall_ms - said.time_ms > after_ms and (said.closed or said.time_ms >= created_ms)
        settled = ledger.watermark >= said.issued and not ledger.above
        if not silent or said.spooled or not (settled or stream_is_empty):
            continue
        balance = balance_agent(agent_id, said, ledger, (), now_ms=wall_ms)
        if balance.closes:
            count += _retire(broker, keys, balance, said, ledger)
    return count


def _retire(
    broker: Broker,
    keys: ClientKeys,
    balance: AgentBalance,
    said: AgentHeartbeat,
    ledger: LedgerRecord,
) -> bool:
    sums = {
        "agents": 1,
        "accepted": balance.accepted,
        "trained": balance.trained,
        "quarantined": balance.quarantined,
        "dropped": balance.dropped,
        "skipped": balance.skipped,
        "lost": balance.lost,
        "duplicates": balance.duplicates,
        "steps": ledger.steps,
        "accepted_steps": max(said.steps, ledger.steps),
    }
    with translate(broker.where), broker.redis.pipeline(transaction=True) as pipe:
        for name, amount in sums.items():
            pipe.hincrby(keys.past, name, amount)
        pipe.hdel(keys.seq, balance.agent_id)
        pipe.hdel(keys.agents, balance.agent_id)
        try:
            pipe.execute()
        except redis.exceptions.OutOfMemoryError:
            return False  # a full broker waits for this worker; there is another time
    return True
