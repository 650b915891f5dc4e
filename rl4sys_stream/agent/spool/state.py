"""How records change the books: one function, for the process that writes them and the one after.

The writer keeps the same state that a reader would rebuild, so a new segment can begin with it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence

from rl4sys_stream.agent.spool.records import (
    Kind,
    Record,
    SpoolState,
    decode_count,
    decode_offer,
    decode_trajectory_record,
)
from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.format import MAX_EXACT_INTEGER

__all__ = [
    "apply_record",
    "drop",
    "is_in",
    "keep",
    "live_runs",
    "offer",
    "offer_unsaved",
    "raise_floor",
    "seal",
]


def apply_record(state: SpoolState, record: Record) -> None:
    """Change `state` as `record` says.

    Raises:
        WireFormatError: If the record contradicts the state; it is changed up to there.
    """
    _check_possible(state, record)
    match record.kind:
        case Kind.ACCEPTED:
            state.accepted += 1
            state.sealing += 1
            state.steps += decode_count(record.payload)
        case Kind.SEALED:
            seal(state, decode_trajectory_record(record.payload)[0])
        case Kind.QUARANTINED:
            count = decode_count(record.payload)
            state.sealing -= count
            state.quarantined += count
        case Kind.REJECTED:
            count = decode_count(record.payload)
            state.sealing -= count
            state.dropped += count
        case Kind.DROPPED:
            drop(state, decode_count(record.payload))
        case Kind.OFFERED:
            offer(state, *decode_offer(record.payload))
        case Kind.FLOOR:
            raise_floor(state, decode_count(record.payload))
        case Kind.OFFERED_UNSAVED:
            offer_unsaved(state, decode_count(record.payload))
        case Kind.STATE:
            raise WireFormatError("a second state within one segment")


def _check_possible(state: SpoolState, record: Record) -> None:
    """Refuse what no agent can have written after `state`, whatever its checksum says."""
    match record.kind:
        case Kind.SEALED:
            leaving = 1
            ordinal = decode_trajectory_record(record.payload)[0]
            # Not `next_ordinal`: a new segment begins with the state during the attempt.
            if not _newest_ordinal(state) < ordinal < MAX_EXACT_INTEGER:
                raise WireFormatError(f"trajectory {ordinal} is sealed out of turn")
        case Kind.QUARANTINED | Kind.REJECTED:
            leaving = decode_count(record.payload)
        case Kind.OFFERED:
            leaving, number = 0, decode_offer(record.payload)[0]
            if number <= state.issued:
                raise WireFormatError(f"number {number} is given twice")
        case Kind.OFFERED_UNSAVED:
            leaving, number = 1, decode_count(record.payload)
            if number <= state.issued:
                raise WireFormatError(f"number {number} is given twice")
        case _:
            leaving = 0
    if leaving > state.sealing:
        raise WireFormatError(f"{leaving} trajectories leave, {state.sealing} were waiting")


def _newest_ordinal(state: SpoolState) -> int:
    """Of the trajectories that are still needed, 0 if there is none."""
    runs = live_runs(state)
    return sum(runs[-1]) - 1 if runs else 0


def seal(state: SpoolState, ordinal: int) -> None:
    """A trajectory is queued under `ordinal`."""
    state.sealing -= 1
    state.next_ordinal = max(state.next_ordinal, ordinal + 1)
    if state.queued and sum(state.queued[-1]) == ordinal:
        first, length = state.queued[-1]
        state.queued[-1] = (first, length + 1)
    else:
        state.queued.append((ordinal, 1))


def drop(state: SpoolState, count: int) -> None:
    """The oldest `count` queued trajectories are dropped."""
    if count > sum(length for _, length in state.queued):
        raise WireFormatError("more trajectories leave the queue than are in it")
    state.dropped += count
    while count:
        first, length = state.queued[0]
        if length > count:
            state.queued[0] = (first + count, length - count)
            return
        del state.queued[0]
        count -= length


def offer(state: SpoolState, first_number: int, ordinals: Sequence[int]) -> None:
    """The oldest queued trajectories, `ordinals`, get the numbers from `first_number` on."""
    for number, ordinal in enumerate(ordinals, first_number):
        if _pop_queued(state) != ordinal:
            raise WireFormatError(f"trajectory {ordinal} is offered before its turn")
        state.issued = number
        if state.offered:
            first, run, length = state.offered[-1]
            if (first + length, run + length) == (number, ordinal):
                state.offered[-1] = (first, run, length + 1)
                continue
        state.offered.append((number, ordinal, 1))


def offer_unsaved(state: SpoolState, number: int) -> None:
    """A trajectory that is not in the spool has the number `number` from now on."""
    state.sealing -= 1
    state.issued = number


def raise_floor(state: SpoolState, floor: int) -> None:
    """All numbers below `floor` are at the broker for good."""
    state.floor = max(state.floor, floor)
    kept = []
    for first, ordinal, length in state.offered:
        past = min(max(floor - first, 0), length)
        if past < length:
            kept.append((first + past, ordinal + past, length - past))
    state.offered = kept


def live_runs(state: SpoolState) -> list[tuple[int, int]]:
    """Runs (first ordinal, length) of the trajectories that are still needed, ascending."""
    return [(ordinal, length) for _, ordinal, length in state.offered] + state.queued


def keep(state: SpoolState, ordinals: Collection[int]) -> None:
    """Forget the needed trajectories that are not among `ordinals`: they cannot be read.

    Numbered ones are skipped by the worker, queued ones are quarantined. Takes time for what is
    there, not for what a damaged state claims.
    """
    there = sorted(ordinals)

    def readable(first: int, length: int) -> list[int]:
        return there[bisect_left(there, first) : bisect_left(there, first + length)]

    state.offered = [
        (number + ordinal - first, ordinal, 1)
        for number, first, length in state.offered
        for ordinal in readable(first, length)
    ]
    queued = sum(length for _, length in state.queued)
    state.queued = [(ordinal, 1) for run in state.queued for ordinal in readable(*run)]
    state.quarantined += queued - len(state.queued)


def is_in(runs: Sequence[tuple[int, int]], ordinal: int) -> bool:
    """Whether one of `runs` (first ordinal, length), ascending, holds `ordinal`."""
    place = bisect_right(runs, ordinal, key=lambda run: run[0]) - 1
    return place >= 0 and ordinal < sum(runs[place])


def _pop_queued(state: SpoolState) -> int:
    if not state.queued:
        raise WireFormatError("more trajectories leave the queue than are in it")
    ordinal, length = state.queued[0]
    if length > 1:
        state.queued[0] = (ordinal + 1, length - 1)
    else:
        del state.queued[0]
    return ordinal
