"""How records change the books: one function, for the process that writes them and the one after.

The writer keeps the same state that a reader would rebuild, so a new segment can begin with it.
"""

from collections.abc import Sequence

from rl4sys_stream.agent.spool.records import (
    Kind,
    Record,
    SpoolState,
    decode_count,
    decode_offer,
    decode_trajectory_record,
)
from rl4sys_stream.errors import WireFormatError

__all__ = ["apply_record", "drop", "live_ordinals", "offer", "offer_unsaved", "raise_floor", "seal"]


def apply_record(state: SpoolState, record: Record) -> None:
    """Change `state` as `record` says.

    Raises:
        WireFormatError: If the record contradicts the state; it is changed up to there.
    """
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
    for _ in range(count):
        _pop_queued(state)
        state.dropped += 1


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


def live_ordinals(state: SpoolState) -> set[int]:
    """Ordinals of the trajectories that are still needed."""
    found: set[int] = set()
    for _, ordinal, length in state.offered:
        found.update(range(ordinal, ordinal + length))
    for ordinal, length in state.queued:
        found.update(range(ordinal, ordinal + length))
    return found


def _pop_queued(state: SpoolState) -> int:
    if not state.queued:
        raise WireFormatError("more trajectories leave the queue than are in it")
    ordinal, length = state.queued[0]
    if length > 1:
        state.queued[0] = (ordinal + 1, length - 1)
    else:
        del state.queued[0]
    return ordinal
