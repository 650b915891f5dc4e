"""What broker/lua/commit.lua does, check by check and write by write."""

from tests.protocol.rules import Rules
from tests.protocol.state import Broker, Session, Work

__all__ = ["carry_out"]


def carry_out(broker: Broker, session: Session, work: Work, rules: Rules) -> Broker | None:
    """The broker after the commit, None if it refuses."""
    if rules.fence and broker.fence != session.token:
        return None
    head = broker.head
    if head.commit == work.commit:
        return broker
    old = work.started_from
    if rules.head and (head.version, head.token) != (old.version, old.token):
        return None
    if rules.head and rules.names_its_commit and head.commit != old.commit:
        return None
    if rules.same_server and session.elsewhere:
        return None
    if rules.membership and not set(work.ids) <= set(broker.pending):
        return None
    ledgers = dict(broker.ledgers) | dict(work.watermarks)
    passed = dict(broker.passed)
    hand = {entry.id: entry for entry in session.in_hand}
    for entry in (hand[i] for i in work.ids):
        if entry.what >= 0:
            passed[entry.agent] = max(passed.get(entry.agent, 1), entry.floor)
    there = {entry.id: entry.what for entry in broker.stream}
    refused = (there.get(i, -1) for i in work.refused)
    return broker._replace(
        stream=tuple(entry for entry in broker.stream if entry.id not in work.ids),
        pending=tuple(i for i in broker.pending if i not in work.ids),
        head=work.head,
        ledgers=tuple(sorted(ledgers.items())),
        quarantine=tuple(sorted((*broker.quarantine, *refused))),
        passed=tuple(sorted(passed.items())),
    )
