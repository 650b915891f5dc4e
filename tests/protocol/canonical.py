"""One state for all that differ only in names: entry ids that nobody can tell apart any more.

Ids are compared and never counted with, so every set of them is replaced by its ranks. (Not where
ids return: there the next one depends on their values.)
"""

from collections.abc import Iterator, Mapping

from tests.protocol.state import Broker, Entry, Session, State

__all__ = ["canonical", "newest_id"]


def canonical(state: State) -> State:
    """The representative of all states that are `state` up to the names of entries."""
    ids = sorted({0, *_ids(state)})
    if ids[-1] == len(ids) - 1:
        return state
    rank = {old: new for new, old in enumerate(ids)}
    return state._replace(
        broker=_broker(state.broker, rank),
        disk=_broker(state.disk, rank) if state.disk else None,
        deep=_broker(state.deep, rank) if state.deep else None,
        worker=_session(state.worker, rank) if state.worker else None,
        zombie=_session(state.zombie, rank) if state.zombie else None,
    )


def newest_id(state: State) -> int:
    """The highest id that anybody in this world knows."""
    return max(_ids(state))


def _ids(state: State) -> Iterator[int]:
    for broker in (state.broker, state.disk, state.deep):
        if broker is not None:
            yield from (entry.id for entry in broker.stream)
            yield from broker.pending
            yield broker.delivered
    for session in (state.worker, state.zombie):
        if session is not None:
            yield from (entry.id for entry in session.in_hand)
            if session.unanswered is not None:
                yield from session.unanswered.ids


def _broker(broker: Broker, rank: Mapping[int, int]) -> Broker:
    return broker._replace(
        stream=_entries(broker.stream, rank),
        delivered=rank[broker.delivered],
        pending=tuple(rank[i] for i in broker.pending),
    )


def _entries(entries: tuple[Entry, ...], rank: Mapping[int, int]) -> tuple[Entry, ...]:
    return tuple(entry._replace(id=rank[entry.id]) for entry in entries)


def _session(session: Session, rank: Mapping[int, int]) -> Session:
    work = session.unanswered
    if work is not None:
        work = work._replace(
            ids=tuple(rank[i] for i in work.ids), refused=tuple(rank[i] for i in work.refused)
        )
    return session._replace(
        in_hand=_entries(session.in_hand, rank),
        waiting=tuple(rank[i] for i in session.waiting),
        accepted=tuple(rank[i] for i in session.accepted),
        copies=tuple(rank[i] for i in session.copies),
        settled=tuple(rank[i] for i in session.settled),
        refused=tuple(rank[i] for i in session.refused),
        unanswered=work,
    )
