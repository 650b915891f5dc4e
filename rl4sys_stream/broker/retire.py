"""Forgetting agents that have closed, once their books are added up.

What stays of one is how far its numbers were settled, for ever: a spool folder that a power loss
brought back, or a message that was held up, may offer one again.
"""

from dataclasses import dataclass

import msgspec

from rl4sys_stream.broker.audit import AgentBalance, balance_agent
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord, parse_ledgers
from rl4sys_stream.broker.registry import AgentHeartbeat, parse_heartbeats
from rl4sys_stream.broker.scripts import run_script
from rl4sys_stream.errors import BrokerError, FencedError

__all__ = ["retire_agents"]


@dataclass(frozen=True, slots=True)
class _Books:
    """What the broker holds of one agent: read, and as it is stored."""

    said: AgentHeartbeat
    ledger: LedgerRecord
    report_data: bytes
    ledger_data: bytes


def retire_agents(
    broker: Broker, keys: ClientKeys, *, token: str, wall_ms: int, after_ms: int
) -> int:
    """Add up the books of agents that closed long ago, and forget them one by one.

    Only for the holder of the lease, before it reads the ledgers. An agent that did not say goodbye
    is kept whole, however long it is silent: it may be behind a broken network, or its machine
    asleep, and come back with more. So is one whose spool may be adopted, and one whose balance is
    open, which would hide it.

    Args:
        broker: Where they are.
        keys: Of the client.
        token: Fencing token of the held lease.
        wall_ms: Now.
        after_ms: How long an agent must have been silent.

    Returns:
        How many were retired.

    Raises:
        FencedError: A newer worker owns the client.
        BrokerError: Safe to call again.
        WireFormatError: If a ledger does not decode.
    """
    ledgers_data = broker.hash_all(keys.seq)
    ledgers = parse_ledgers(keys.seq, ledgers_data)
    reports = broker.hash_all(keys.agents)
    count = 0
    for agent_id, said in parse_heartbeats(reports).items():
        # While it is adopted, its last word is the adopter's.
        if not said.closed or said.spooled or wall_ms - said.time_ms <= after_ms:
            continue
        name = agent_id.encode()
        ledger = ledgers.get(agent_id, LedgerRecord())
        books = _Books(said, ledger, reports[name], ledgers_data.get(name, b""))
        # A report that comes after the agent was retired says what is in the sums already.
        heard = None if ledger.retired else said
        balance = balance_agent(agent_id, heard, ledger, (), now_ms=wall_ms)
        # A closed agent's balance closes only where all of its numbers are settled.
        if balance.closes and not ledger.above:
            count += _retire(broker, keys, token, balance, books)
    return count


def _retire(
    broker: Broker, keys: ClientKeys, token: str, balance: AgentBalance, books: _Books
) -> bool:
    ledger = books.ledger
    rest = LedgerRecord(watermark=ledger.watermark, retired=ledger.watermark)
    sums = _sums(balance, books)
    arguments: list[str | bytes | int] = [
        token,
        balance.agent_id,
        books.report_data,
        books.ledger_data,
        _encode(rest) if rest.watermark else b"",
    ]
    for name, amount in sums.items():
        arguments += [name, amount]
    script_keys = [keys.fence, keys.agents, keys.seq, keys.past]
    try:
        return bool(run_script(broker, "retire", script_keys, arguments))
    except BrokerError as error:
        if "refused: FENCED " in str(error):
            message = f"{keys.client}: {str(error).partition('refused: ')[2]}"
            raise FencedError(message) from error
        raise


def _sums(balance: AgentBalance, books: _Books) -> dict[str, int]:
    ledger = books.ledger
    return {
        "agents": 0 if ledger.retired else 1,
        "accepted": balance.accepted,
        "trained": balance.trained,
        "quarantined": balance.quarantined,
        "refused": ledger.quarantined,
        "dropped": balance.dropped,
        "skipped": balance.skipped,
        "lost": balance.lost,
        "duplicates": balance.duplicates,
        "steps": ledger.steps,
        "accepted_steps": max(0 if ledger.retired else books.said.steps, ledger.steps),
    }


def _encode(rest: LedgerRecord) -> bytes:
    """The few fields that say something: there is one of these for every agent that ever was."""
    fields = msgspec.to_builtins(rest)
    return msgspec.json.encode({name: value for name, value in fields.items() if value})
