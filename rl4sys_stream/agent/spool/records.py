"""The bytes of a spool: checksummed records in segment files, and the books that they add up to.

    segment = magic (8 bytes), then records, then zeros
    record  = kind u8, zeros u24, length u32, xxh3-64 of kind, length and payload u64, payload

All integers are little-endian. A record that does not match its checksum ends its segment: what a
killed process or a full disk left behind it was never promised to anybody. The first record of a
segment is the whole state at its beginning, so older segments are needed for their trajectories
only.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

import msgspec
import xxhash

from rl4sys_stream.errors import WireFormatError, WireLimitError
from rl4sys_stream.wire.format import MAX_EXACT_INTEGER, MAX_TOKEN_CHARS
from rl4sys_stream.wire.json import decode_json

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_RECORD_BYTES",
    "Kind",
    "Record",
    "SpoolState",
    "count_payload",
    "decode_count",
    "decode_offer",
    "decode_state",
    "decode_trajectory_record",
    "encode_offer",
    "encode_record",
    "encode_state",
    "encode_trajectory_record",
    "scan",
]

MAGIC: Final = b"RL4SPL\x00\x01"
"""The last byte is the version of the format."""
MAX_RECORD_BYTES: Final = 512 << 20
"""Redis takes no larger values, so no trajectory is larger."""

_HEADER: Final = struct.Struct("<B3xIQ")
HEADER_BYTES: Final = _HEADER.size
_COUNT: Final = struct.Struct("<Q")
_TRAJECTORY: Final = struct.Struct("<QH")
_LENGTHS: Final = struct.Struct("<HI")

Fields = tuple[tuple[bytes, bytes], ...]


class Kind(IntEnum):
    """What a record says."""

    STATE = 1
    """The whole state; the first record of a segment, and nowhere else."""
    ACCEPTED = 2
    """A trajectory has ended (count: its steps) and waits to be sealed."""
    SEALED = 3
    """One of them, whole, under its ordinal."""
    QUARANTINED = 4
    """This many of them were given up."""
    REJECTED = 5
    """This many of them were sealed and dropped without being written."""
    DROPPED = 6
    """The oldest this many of the queued ones were dropped."""
    OFFERED = 7
    """The oldest queued ones have their numbers from now on: first number, then ordinals."""
    FLOOR = 8
    """Numbers below this one are at the broker for good."""
    OFFERED_UNSAVED = 9
    """A trajectory for which the disk had no room got this number."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where its payload lies.

    Attributes:
        kind: What it says.
        payload: Its bytes.
        offset: Of the payload within its segment.
    """

    kind: Kind
    payload: bytes
    offset: int


Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT_INTEGER)]
Ordinal = Annotated[int, msgspec.Meta(ge=1, le=MAX_EXACT_INTEGER)]
AgentId = Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{1,{MAX_TOKEN_CHARS}}}\Z")]


class SpoolState(msgspec.Struct, kw_only=True):
    """The agent's books as the spool knows them; see `agent.outbox.OutboxCounts`.

    Attributes:
        agent_id: Whose spool it is.
        started_ms: Wall clock of that agent's start.
        accepted: Trajectories that ended.
        steps: Environment steps in them.
        sealing: Those that wait for rewards.
        dropped: Discarded by the drop policy.
        quarantined: Given up because rewards were missing.
        issued: Numbers given.
        floor: Numbers below it are at the broker for good.
        next_ordinal: Of the next trajectory; ordinals count what is sealed, from 1.
        offered: Runs (first number, first ordinal, length) of what is offered, oldest first.
        queued: Runs (first ordinal, length) of what has no number yet, oldest first.
    """

    agent_id: AgentId
    started_ms: Count = 0
    accepted: Count = 0
    steps: Count = 0
    sealing: Count = 0
    dropped: Count = 0
    quarantined: Count = 0
    issued: Count = 0
    floor: Ordinal = 1
    next_ordinal: Ordinal = 1
    offered: list[tuple[Ordinal, Ordinal, Ordinal]] = msgspec.field(default_factory=list)
    queued: list[tuple[Ordinal, Ordinal]] = msgspec.field(default_factory=list)


def encode_record(kind: Kind, payload: bytes) -> bytes:
    """One record.

    Raises:
        WireLimitError: If the payload is larger than any trajectory may be.
    """
    if len(payload) > MAX_RECORD_BYTES:
        raise WireLimitError(f"a record of {len(payload)} bytes is larger than {MAX_RECORD_BYTES}")
    return _HEADER.pack(kind, len(payload), _checksum(kind, payload)) + payload


def _checksum(kind: int, payload: bytes) -> int:
    # The kind and the length go into the seed, so that a flipped bit in either shows as well.
    return xxhash.xxh3_64_intdigest(payload, seed=kind << 32 | len(payload))


def scan(read: Callable[[int, int], bytes], size: int) -> Iterator[Record]:
    """The records of a segment up to the first that is not whole.

    Args:
        read: Gives bytes from an offset on, as many as are asked for or fewer at the end; so that
            a file is never in memory whole, whatever its size claims to be.
        size: Of the segment.

    Raises:
        WireFormatError: If it is no segment, or of a later format.
    """
    if read(0, len(MAGIC)) != MAGIC:
        raise WireFormatError("it does not begin like a spool segment of this version")
    at = len(MAGIC)
    kinds = {int(kind) for kind in Kind}
    while len(header := read(at, HEADER_BYTES)) == HEADER_BYTES:
        kind, length, checksum = _HEADER.unpack(header)
        start = at + HEADER_BYTES
        if (
            kind not in kinds
            or header[1:4] != b"\0\0\0"
            or length > min(size - start, MAX_RECORD_BYTES)
        ):
            return
        payload = read(start, length)
        if len(payload) != length or _checksum(kind, payload) != checksum:
            return
        yield Record(Kind(kind), payload, start)
        at = start + length


def count_payload(count: int) -> bytes:
    """The payload of a record that is one number."""
    return _COUNT.pack(count)


def decode_count(payload: bytes) -> int:
    """What `count_payload` wrote.

    Raises:
        WireFormatError: If it is no such payload.
    """
    if len(payload) != _COUNT.size:
        raise WireFormatError(f"a count of {len(payload)} bytes; it has {_COUNT.size}")
    count = int(_COUNT.unpack(payload)[0])
    if count > MAX_EXACT_INTEGER:
        raise WireFormatError(f"nobody counts to {count}")
    return count


def encode_offer(first_number: int, ordinals: Iterable[int]) -> bytes:
    """The payload of an OFFERED record."""
    numbers = [first_number, *ordinals]
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def decode_offer(payload: bytes) -> tuple[int, tuple[int, ...]]:
    """First number and ordinals.

    Raises:
        WireFormatError: If it is no such payload.
    """
    count, rest = divmod(len(payload), _COUNT.size)
    if rest or not count:
        raise WireFormatError(f"an offer of {len(payload)} bytes; it holds numbers of 8 bytes")
    first, *ordinals = struct.unpack(f"<{count}Q", payload)
    if not 1 <= first <= MAX_EXACT_INTEGER - count:
        raise WireFormatError(f"no trajectory gets the number {first}")
    return first, tuple(ordinals)


def encode_state(state: SpoolState) -> bytes:
    """The payload of a STATE record."""
    return msgspec.json.encode(state)


def decode_state(payload: bytes) -> SpoolState:
    """What `encode_state` wrote.

    Raises:
        WireFormatError: If it is no such payload.
    """
    state = decode_json(payload, SpoolState, "the spool's state")
    number, ordinal = 1, 1
    for first, start, length in state.offered:
        if first < number or start < ordinal:
            raise WireFormatError("what the spool's state offers is not in order")
        number, ordinal = first + length, start + length
    for start, length in state.queued:
        if start < ordinal:
            raise WireFormatError("what the spool's state has queued is not in order")
        ordinal = start + length
    if ordinal > state.next_ordinal or number > state.issued + 1:
        raise WireFormatError("the spool's state holds what it has not given yet")
    return state


def encode_trajectory_record(ordinal: int, fields: Fields) -> bytes:
    """The payload of a SEALED record: ordinal, then the fields of the stream entry."""
    parts = [_TRAJECTORY.pack(ordinal, len(fields))]
    for name, value in fields:
        parts += (_LENGTHS.pack(len(name), len(value)), name, value)
    return b"".join(parts)


def decode_trajectory_record(payload: bytes) -> tuple[int, Fields]:
    """Ordinal and fields.

    Raises:
        WireFormatError: If it is no such payload.
    """
    try:
        ordinal, count = _TRAJECTORY.unpack_from(payload)
        at = _TRAJECTORY.size
        fields = []
        for _ in range(count):
            name_bytes, value_bytes = _LENGTHS.unpack_from(payload, at)
            at += _LENGTHS.size
            middle, end = at + name_bytes, at + name_bytes + value_bytes
            if end > len(payload):
                raise WireFormatError("a field goes beyond the end of its record")
            fields.append((payload[at:middle], payload[middle:end]))
            at = end
    except struct.error as error:
        raise WireFormatError(f"a trajectory's record is cut short: {error}") from error
    if at != len(payload):
        raise WireFormatError(f"{len(payload) - at} bytes follow the last field of a record")
    return int(ordinal), tuple(fields)
