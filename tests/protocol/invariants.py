"""What must hold: in every state, and where nothing more can happen.

Judged by the trajectories themselves, not by their numbers: what the weights of the committed head
have learned from, what the quarantine holds, and where everything else can still be found.
"""

from collections import Counter
from collections.abc import Iterator

from rl4sys_stream.broker.ledger import LedgerRecord
from tests.protocol.rules import Scenario
from tests.protocol.state import OWN, Broker, State

__all__ = ["wrong_at_rest", "wrong_in"]


def wrong_in(state: State, scenario: Scenario) -> str:
    """What is wrong in `state`, "" if nothing is."""
    broker = state.broker
    twice = [what for what, times in Counter(broker.head.trained).items() if times > 1]
    if twice:
        return f"trained twice: {twice}"
    if both := set(broker.head.trained) & set(broker.quarantine):
        return f"trained and quarantined: {sorted(both)}"
    if dropped := set(state.dropped) & {*broker.head.trained, *broker.quarantine}:
        return f"dropped and taken in: {sorted(dropped)}"
    if not state.too_deep and (lost := sorted(_lost(state, scenario))):
        return f"lost without a word: {lost}"
    return _contradiction(broker)


def _lost(state: State, scenario: Scenario) -> Iterator[int]:
    """Trajectories that are nowhere, and that nobody outside destroyed."""
    broker = state.broker
    found = {*broker.head.trained, *broker.quarantine}
    found |= {*state.excused, *state.dropped, *state.died}
    ledgers = dict(broker.ledgers)
    for agent in state.agents:
        found.update(agent.queued)
        # An agent that still offers a settled number offers what will be taken for a duplicate.
        found.update(
            offer.what
            for offer in (*agent.offered, *agent.unnoted)
            if not _settled(ledgers.get(agent.name), offer.seq)
        )
    for entry in broker.stream:
        reachable = entry.id > broker.delivered or entry.id in broker.pending
        if reachable and not _settled(ledgers.get(entry.agent), entry.seq):
            found.add(entry.what)
    for owner, count in enumerate(scenario.trajectories):
        yield from (what for i in range(count) if (what := OWN * owner + i) not in found)


def _settled(record: LedgerRecord | None, seq: int) -> bool:
    return record is not None and (seq <= record.watermark or seq in record.above)


def _contradiction(broker: Broker) -> str:
    """Where the books of the broker contradict each other."""
    counts = broker.head.counts
    records = [record for _, record in broker.ledgers]
    for name in ("trained", "quarantined", "skipped", "duplicate"):
        attributed = sum(getattr(record, name) for record in records)
        if attributed != getattr(counts, name):
            return f"the head counts {getattr(counts, name)} {name}, the ledgers {attributed}"
    if counts.trained != len(broker.head.trained):
        return f"{counts.trained} counted as trained, {len(broker.head.trained)} were"
    if counts.quarantined != len(broker.quarantine):
        return f"{counts.quarantined} counted as quarantined, {len(broker.quarantine)} are there"
    for name, record in broker.ledgers:
        outcomes = record.trained + record.quarantined + record.dropped + record.skipped
        if outcomes != record.watermark + len(record.above):
            return f"{name} has {outcomes} outcomes in {record}"
    return ""


def wrong_at_rest(state: State) -> str:
    """What is wrong in a state in which nothing more can happen, "" if nothing is."""
    broker = state.broker
    ledgers = dict(broker.ledgers)
    passed = dict(broker.passed)
    if broker.pending and not state.died:
        return f"pending for ever: {broker.pending}"
    for agent in state.agents:
        if agent.queued or agent.offered:
            return f"{agent.name} never gets rid of {agent.queued or agent.offered}"
        record = ledgers.get(agent.name, LedgerRecord())
        # Numbers at the end, or what a dead process took with it, nobody can tell from later ones.
        floor = passed.get(agent.name, 1)
        if record.watermark < floor - 1 and not state.torn:
            return f"a gap for ever: {agent.name} is past {floor - 1} and {record} is not"
    return ""
