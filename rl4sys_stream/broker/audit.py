"""The balance of a client: what its agents accepted against what became of it.

    accepted = trained + quarantined + dropped + skipped + pending + lost   duplicates apart

Read while everything is in motion, and exact all the same: the heartbeats are read first, then the
stream, then the ledgers, so a trajectory on its way is seen at least once; and numbers, not
counts, are compared, so it is never counted twice. Only numbers that were given before the stream
was read can be missed in it; which these are, the ledgers say that are read before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord, parse_ledgers, read_ledgers
from rl4sys_stream.broker.past import PastAgents, parse_past
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    read_heartbeats,
    require_registration,
)
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.errors import WireError
from rl4sys_stream.wire.trajectory import decode_address

__all__ = ["STALE_MS", "AgentBalance", "AuditReport", "audit_client", "balance_agent"]


STALE_MS: Final = 10_000
"""An agent that has not reported for this long is taken for dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentBalance:
    """The balance of one agent.

    Attributes:
        agent_id: The agent.
        live: It has not said goodbye, and has reported lately.
        accepted: Trajectories whose end was marked, as far as anybody knows.
        trained: Taken in by exactly one commit.
        quarantined: Refused by the worker, or never sealed at the agent.
        dropped: Discarded by a configured policy, at the agent or the worker.
        skipped: Destroyed by a third party.
        pending: In the stream, still offered or queued by a live agent, or in the spool of a dead
            one, which the next agent in its folder offers.
        lost: Nowhere any more, and the agent that could offer it is gone. An agent that said
            goodbye had delivered it: then the balance is open. One that died took with it what it
            had not sent; without a spool that is outside the promise, but never unsaid.
        duplicates: Second copies that arrived; not part of the balance.
        missing: What is in none of these; the balance closes if it is 0.
        inconsistent: Which of the books contradict themselves, "" if none.
    """

    agent_id: str
    live: bool
    accepted: int
    trained: int
    quarantined: int
    dropped: int
    skipped: int
    pending: int
    lost: int
    duplicates: int
    missing: int
    inconsistent: str = ""
    closed: bool = False
    """It said goodbye."""
    spooled: int = 0
    """Of the pending ones, those in the spool of an agent that is gone."""

    @property
    def closes(self) -> bool:
        """Whether every accepted trajectory is accounted for, once."""
        return self.missing == 0 and not self.inconsistent and not (self.closed and self.lost)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The balance of a client.

    Attributes:
        client: Its name.
        agents: One balance an agent, by agent_id.
        steps: Environment steps in the trained trajectories.
        accepted_steps: Environment steps in the accepted ones, as the agents last reported them,
            or what was trained of them, if that is more.
        anonymous: Entries quarantined whose agent could not be read.
        past: The summed balance of agents that are long gone, and were forgotten one by one.
    """

    client: str
    agents: tuple[AgentBalance, ...]
    steps: int
    accepted_steps: int
    anonymous: int
    past: PastAgents = field(default_factory=PastAgents)

    @property
    def closes(self) -> bool:
        """Whether every agent's balance closes."""
        return all(agent.closes for agent in self.agents)

    def total(self, name: str) -> int:
        """Sum of one of the balance's numbers over all agents, past ones included."""
        past = int(getattr(self.past, name, 0))
        return past + sum(int(getattr(agent, name)) for agent in self.agents)


def audit_client(broker: Broker, keys: ClientKeys, *, now_ms: int | None = None) -> AuditReport:
    """The balance of a client now.

    Args:
        broker: Where it is.
        keys: Of the client.
        now_ms: Wall clock, to tell agents that died; None takes all that did not say goodbye for
            alive.

    Raises:
        UnknownClientError: If it is not registered.
        BrokerError: If the broker cannot be asked.
        KeyTypeError: If something else stands in the place of a key.
        WireFormatError: If a ledger does not decode.
    """
    require_key_types(broker, keys)
    require_registration(broker, keys)
    heartbeats = read_heartbeats(broker, keys)
    before = read_ledgers(broker, keys)
    streamed: dict[str, set[int]] = {}
    for entry in TrajectoryStream(broker, keys).addresses():
        try:
            address = decode_address(entry.fields)
        except WireError:
            continue
        streamed.setdefault(address.agent_id, set()).add(address.seq)
    ledgers, past, reporting = _read_settled(broker, keys)
    # Of an agent that was retired meanwhile, or long ago, all that it ever said is in the sums.
    heartbeats = {
        agent_id: said
        for agent_id, said in heartbeats.items()
        if agent_id in reporting and not (agent_id in ledgers and ledgers[agent_id].retired)
    }
    head = read_head(broker, keys)
    balances = tuple(
        balance_agent(
            agent_id,
            heartbeats.get(agent_id),
            ledgers.get(agent_id, LedgerRecord()),
            streamed.get(agent_id, set()),
            known=before.get(agent_id, LedgerRecord()).highest,
            now_ms=now_ms,
        )
        for agent_id in sorted({*heartbeats, *ledgers, *streamed})
        if not _is_past(ledgers.get(agent_id))
    )
    attributed = past.refused + sum(record.quarantined for record in ledgers.values())
    in_head = head.counts.quarantined if head else 0
    return AuditReport(
        keys.client,
        balances,
        steps=past.steps + sum(record.steps for record in ledgers.values()),
        past=past,
        accepted_steps=past.accepted_steps
        + sum(
            # A report may be a second old, or the last of an agent that died.
            max(
                heartbeats[agent_id].steps if agent_id in heartbeats else 0,
                ledgers[agent_id].steps if agent_id in ledgers else 0,
            )
            for agent_id in {*heartbeats, *ledgers}
        ),
        anonymous=max(in_head - attributed, 0),
    )


def _read_settled(
    broker: Broker, keys: ClientKeys
) -> tuple[dict[str, LedgerRecord], PastAgents, set[str]]:
    """Ledgers, sums of the past agents, and ids of those that report, all of one instant.

    One after the other, an agent that is retired in between would be found twice or not at all.
    """
    with translate(broker.where), broker.redis.pipeline(transaction=True) as pipe:
        pipe.hgetall(keys.seq)
        pipe.hgetall(keys.past)
        pipe.hkeys(keys.agents)
        seq, past, agents = pipe.execute()
    ids = {name.decode("utf-8", "replace") for name in agents}
    return parse_ledgers(keys.seq, seq), parse_past(past), ids


def _is_past(ledger: LedgerRecord | None) -> bool:
    """Whether all of the agent is in the sums, and not even a second copy came later."""
    return (
        ledger is not None
        and 0 < ledger.retired == ledger.watermark
        and not ledger.above
        and not ledger.duplicate
    )


def balance_agent(
    agent_id: str,
    heartbeat: AgentHeartbeat | None,
    ledger: LedgerRecord,
    streamed: Iterable[int],
    *,
    known: int | None = None,
    now_ms: int | None = None,
) -> AgentBalance:
    """The balance of one agent from its three books.

    Args:
        agent_id: The agent.
        heartbeat: What it last said; None for one that never did.
        ledger: What the workers settled.
        streamed: Numbers of its entries in the stream, read before the ledger.
        known: Highest number that was settled before the stream was read; None if nothing was
            settled since.
        now_ms: See `audit_client`.
    """
    streamed = set(streamed)
    above = set(ledger.above)
    # Numbers 1 … retired of a past agent are in the sums of all of them.
    settled = ledger.watermark + len(above) - ledger.retired
    in_stream = {seq for seq in streamed if seq > ledger.watermark and seq not in above}
    said = heartbeat or AgentHeartbeat(agent_id=agent_id)
    # Agents append in order: all numbers up to here had been appended or were being offered.
    seen = max([said.issued, ledger.highest if known is None else known, *streamed])
    later = max(ledger.watermark - seen, 0)
    later += sum(1 for seq in above if seq > max(seen, ledger.watermark))
    highest = seen + later
    # What it still offers: the numbers from its floor on that are nowhere else yet.
    first = max(said.floor, ledger.watermark + 1)
    elsewhere = sum(1 for seq in (above | in_stream) if first <= seq <= said.issued)
    offered = max(said.issued + 1 - first, 0) - elsewhere
    missing = highest - ledger.retired - settled - len(in_stream) - offered
    at_agent = said.queued + said.sealing
    gone = said.closed or (now_ms is not None and now_ms - said.time_ms > STALE_MS)
    reachable = said.spooled or not gone
    return AgentBalance(
        agent_id=agent_id,
        live=heartbeat is not None and not gone,
        closed=said.closed,
        accepted=highest - ledger.retired + at_agent + said.dropped + said.quarantined,
        trained=ledger.trained,
        quarantined=ledger.quarantined + said.quarantined,
        dropped=ledger.dropped + said.dropped,
        skipped=ledger.skipped,
        pending=len(in_stream) + (offered + at_agent if reachable else 0),
        spooled=offered + at_agent if gone and said.spooled else 0,
        lost=0 if reachable else offered + at_agent,
        duplicates=ledger.duplicate,
        missing=missing,
        inconsistent=_contradictions(heartbeat, ledger, settled),
    )


def _contradictions(heartbeat: AgentHeartbeat | None, ledger: LedgerRecord, settled: int) -> str:
    found = []
    outcomes = ledger.trained + ledger.quarantined + ledger.dropped + ledger.skipped
    if outcomes != settled:
        found.append(f"the ledger settles {settled} numbers and counts {outcomes} outcomes")
    if heartbeat is not None:
        at_agent = heartbeat.queued + heartbeat.sealing + heartbeat.dropped + heartbeat.quarantined
        if heartbeat.accepted != heartbeat.issued + at_agent:
            found.append(
                f"the agent accepted {heartbeat.accepted} and accounts for "
                f"{heartbeat.issued + at_agent}"
            )
    return "; ".join(found)
