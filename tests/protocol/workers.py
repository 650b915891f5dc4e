"""What workers do, as worker/session.py and worker/intake.py do it, with the shipped `Books`."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec

from rl4sys_stream.broker.head import Head as ShippedHead
from rl4sys_stream.broker.ledger import LedgerRecord
from rl4sys_stream.wire.trajectory import EntryAddress
from rl4sys_stream.worker.intake import Candidate
from rl4sys_stream.worker.settlement import Accepted, Books, Settlement
from tests.protocol.commit import carry_out
from tests.protocol.rules import Rules, Scenario
from tests.protocol.state import OWN, Broker, Entry, Ledgers, Session, State, Work, spend
from tests.unit.worker.entries import trajectory

__all__ = ["worker_steps"]

Steps = Iterator[tuple[str, State]]

HEAD = ShippedHead(1, "1:x", "line", "m", "c", ())
"""For the policy lag, which is never too large here."""
STEPS = trajectory(1)


def worker_steps(state: State, rules: Rules, scenario: Scenario) -> Steps:
    """Everything that the worker or its zombie may do next, or that may befall them."""
    yield from _acquire(state, rules)
    if state.worker is not None and (crashed := spend(state, "crash")) is not None:
        yield "the worker crashes", crashed._replace(worker=None)
    for slot in ("worker", "zombie"):
        session: Session | None = getattr(state, slot)
        if session is None:
            continue
        if session.unanswered is not None:
            yield from _commit(state, slot, session, session.unanswered, rules)
            continue
        yield from _read(state, slot, session, rules, scenario)
        yield from _look(state, slot, session, rules)
        yield from _close_books(state, slot, session, rules, scenario)


def _put(state: State, slot: str, session: Session | None) -> State:
    return state._replace(worker=session) if slot == "worker" else state._replace(zombie=session)


def _acquire(state: State, rules: Rules) -> Steps:
    """A new tenure: a token, the head, the ledgers, then the pending list."""
    token = state.tokens + 1
    broker = state.broker._replace(fence=token)
    pending = _found(broker, broker.pending, rules)
    session = Session(
        token,
        broker.head,
        broker.ledgers,
        broker.head.counts,
        pending,
        tuple(entry.id for entry in pending),
    )
    begun = state._replace(broker=broker, tokens=token, worker=session)
    if state.worker is None:
        yield f"a worker takes token {token}", begun
    elif state.zombie is None and (over := spend(state, "zombie")) is not None:
        yield f"token {token} takes over", begun._replace(zombie=state.worker, budget=over.budget)


def _found(broker: Broker, ids: Sequence[int], rules: Rules) -> tuple[Entry, ...]:
    """Pending entries; nothing but an id where a third party deleted one."""
    there = {entry.id: entry for entry in broker.stream}
    newest = broker.head.commit[1] if rules.high_water_id else 0
    return tuple(there.get(i, Entry(i, "", 0, 0, -1)) for i in ids if i > newest)


def _read(state: State, slot: str, session: Session, rules: Rules, scenario: Scenario) -> Steps:
    if session.waiting:
        taken = _take(state, session, rules, scenario)
        yield f"the {slot} takes {session.waiting[0]}", _put(state, slot, taken)
        if len(session.waiting) > scenario.read_ahead:
            return
    broker = state.broker
    new = next((entry for entry in broker.stream if entry.id > broker.delivered), None)
    if new is None:
        return
    pending = tuple(sorted({*broker.pending, new.id}))
    state = state._replace(broker=broker._replace(delivered=new.id, pending=pending))
    if all(entry.id != new.id for entry in session.in_hand):
        session = _queue(session, (new,))
        if not scenario.read_ahead and len(session.waiting) == 1:
            session = _take(state, session, rules, scenario)
    yield f"the {slot} reads {new.id}", _put(state, slot, session)


def _queue(session: Session, entries: Sequence[Entry]) -> Session:
    in_hand = tuple(sorted((*session.in_hand, *entries)))
    waiting = tuple(sorted((*session.waiting, *(entry.id for entry in entries))))
    return session._replace(in_hand=in_hand, waiting=waiting)


def _rescan(broker: Broker, session: Session, rules: Rules) -> Session:
    known = {entry.id for entry in session.in_hand}
    fresh = [i for i in broker.pending if i not in known]
    return _queue(session, _found(broker, fresh, rules)) if fresh else session


def _look(state: State, slot: str, session: Session, rules: Rules) -> Steps:
    """An idle read: is the pending list longer than what is in hand?"""
    broker = state.broker
    idle = not any(entry.id > broker.delivered for entry in broker.stream)
    if idle and len(broker.pending) > len(session.in_hand):
        found = _rescan(broker, session, rules)
        if found != session:
            yield f"the {slot} looks again", _put(state, slot, found)


# -- the books ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _candidate(entry: Entry, unreadable: frozenset[tuple[int, int]]) -> Candidate:
    entry_id = f"{entry.id}-0"
    if entry.what < 0:
        return Candidate(entry_id, 0, reason="deleted")
    address = EntryAddress(entry.agent, entry.seq, entry.floor)
    if divmod(entry.what, OWN) in unreadable:
        return Candidate(entry_id, 1, address, None, "does not decode")
    return Candidate(entry_id, 1, address, STEPS)


def _number(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _books(session: Session, rules: Rules, scenario: Scenario, rescan: object) -> Books:
    """The shipped books as this session holds them."""
    books = rules.books(
        dict(session.ledgers),
        session.counts,
        lineage_epoch=0,
        max_policy_lag=1,
        rescan=rescan,  # type: ignore[arg-type]  # a closure over the session
    )
    there = {entry.id: entry for entry in session.in_hand}
    for i in session.accepted:
        candidate = _candidate(there[i], scenario.unreadable)
        assert candidate.address is not None
        books._accepted.append(Accepted(candidate.entry_id, candidate.address, STEPS, 1))
        books._held.setdefault(candidate.address.agent_id, set()).add(candidate.address.seq)
    for i in session.copies:
        candidate = _candidate(there[i], scenario.unreadable)
        assert candidate.address is not None
        books._copies.append((candidate, candidate.address))
    books._settled = [f"{i}-0" for i in session.settled]
    for i in session.refused:
        candidate = _candidate(there[i], scenario.unreadable)
        books._refuse(candidate, candidate.address)
    books._scanned = dict(session.scanned)
    books._floors = dict(session.floors)
    books._gaps = set(session.gaps)
    books._dirty = set(session.dirty)
    return books


def _noted(session: Session, books: Books) -> Session:
    """`session` with what its books hold now."""
    return session._replace(
        ledgers=_ledgers(books),
        counts=books._totals.counts(),
        accepted=tuple(_number(item.entry_id) for item in books.held()),
        copies=tuple(_number(candidate.entry_id) for candidate, _ in books._copies),
        settled=tuple(_number(entry_id) for entry_id in books._settled),
        refused=tuple(_number(refusal.entry_id) for refusal in books._refusals),
        scanned=tuple(sorted(books._scanned.items())),
        floors=tuple(sorted(books._floors.items())),
        gaps=tuple(sorted(books._gaps)),
        dirty=tuple(sorted(books._dirty)),
    )


def _ledgers(books: Books) -> Ledgers:
    return tuple(sorted((a, ledger.record()) for a, ledger in books._ledgers.items()))


def _take(state: State, session: Session, rules: Rules, scenario: Scenario) -> Session:
    """The oldest waiting entry goes to the books, and what a rescan on its account brings up."""
    first, *rest = session.waiting
    current = session._replace(waiting=tuple(rest))

    def rescan(before: str) -> list[Candidate]:
        nonlocal current
        current = _rescan(state.broker, current, rules)
        older = tuple(i for i in current.waiting if i < _number(before))
        there = {entry.id: entry for entry in current.in_hand}
        current = current._replace(waiting=tuple(i for i in current.waiting if i not in older))
        return [_candidate(there[i], scenario.unreadable) for i in older]

    books = _books(session, rules, scenario, rescan)
    entry = next(entry for entry in session.in_hand if entry.id == first)
    books.accept(_candidate(entry, scenario.unreadable), HEAD)
    return _noted(current, books)


# -- commits --------------------------------------------------------------------------------------


def _close_books(
    state: State, slot: str, session: Session, rules: Rules, scenario: Scenario
) -> Steps:
    if session.accepted:
        books = _books(session, rules, scenario, None)
        settlement = books.settle_trained()
        yield from _begin(state, slot, session, books, settlement, rules)
    if session.settled and (books := _books(session, rules, scenario, None)).unsettled:
        settlement = books.settle_refused()
        yield from _begin(state, slot, session, books, settlement, rules)


def _begin(
    state: State, slot: str, session: Session, books: Books, settlement: Settlement, rules: Rules
) -> Steps:
    there = {entry.id: entry for entry in session.in_hand}
    trained = tuple(there[i].what for i in session.accepted) if not books.accepted else ()
    commit = (session.token, session.commits + 1)
    if rules.high_water_id:
        commit = (session.token, max(map(_number, settlement.entry_ids)))
    old = session.head
    work = Work(
        commit=commit,
        started_from=old,
        head=old._replace(
            version=old.version + bool(trained),
            token=session.token if trained else old.token,
            commit=commit,
            trained=tuple(sorted((*old.trained, *trained))),
            counts=settlement.counts,
        ),
        ids=tuple(sorted(_number(entry_id) for entry_id in settlement.entry_ids)),
        refused=session.refused,
        watermarks=tuple(
            (agent, msgspec.json.decode(mark, type=LedgerRecord))
            for agent, mark in sorted(settlement.watermarks.items())
        ),
    )
    session = _noted(session, books)._replace(commits=session.commits + 1)
    yield from _commit(state, slot, session, work, rules)


def _commit(state: State, slot: str, session: Session, work: Work, rules: Rules) -> Steps:
    broker = carry_out(state.broker, session, work, rules)
    kind = "trains" if work.head.version > work.started_from.version else "settles"
    name = f"the {slot} {kind} {','.join(map(str, work.ids))}"
    if broker is None:
        # It begins again at the head, under a new token.
        yield f"{name}: refused", _put(state, slot, None)
        return
    done = session._replace(
        head=work.head,
        in_hand=tuple(entry for entry in session.in_hand if entry.id not in work.ids),
        unanswered=None,
    )
    if len(broker.pending) > len(done.in_hand):
        done = _rescan(broker, done, rules)
    yield name, _put(state, slot, done)._replace(broker=broker)
    if (lost := spend(state, "commit_reply")) is not None and session.unanswered is None:
        waiting = _put(lost, slot, session._replace(unanswered=work))
        yield f"{name}: the reply is lost", waiting._replace(broker=broker)
