"""Which entry of which agent this is: three fields that stay readable when the rest is not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.format import MAX_EXACT_INTEGER, MAX_TOKEN_CHARS

__all__ = ["EntryAddress", "address_fields", "decode_address", "entry_field"]

_COUNT: Final = re.compile(rb"[1-9][0-9]{0,15}")
_AGENT_ID: Final = re.compile(rb"[!-~]{1,%d}" % MAX_TOKEN_CHARS)


@dataclass(frozen=True, slots=True)
class EntryAddress:
    """Which entry of which agent this is; enough to settle it unread.

    Attributes:
        agent_id: 1 to 128 printable ASCII characters.
        seq: The agent's number for the entry, from 1.
        floor: The lowest number that the agent still offers, from 1, at most `seq`.
    """

    agent_id: str
    seq: int
    floor: int


def address_fields(address: EntryAddress) -> tuple[tuple[bytes, bytes], ...]:
    """The fields `agent_id`, `seq` and `floor`.

    Raises:
        WireFormatError: If `decode_address` would refuse them.
    """
    fields = (
        (b"agent_id", address.agent_id.encode("utf-8", "replace")),
        (b"seq", b"%d" % address.seq),
        (b"floor", b"%d" % address.floor),
    )
    decode_address(dict(fields))
    return fields


def decode_address(fields: Mapping[bytes, bytes]) -> EntryAddress:
    """The entry's address; its other fields may be anything.

    Raises:
        WireFormatError: If one of the three fields is absent or malformed.
    """
    agent_id = entry_field(fields, b"agent_id")
    if not _AGENT_ID.fullmatch(agent_id):
        raise WireFormatError(
            f"agent_id is no word of 1 to {MAX_TOKEN_CHARS} printable ASCII characters"
        )
    seq = _read_count(fields, b"seq")
    floor = _read_count(fields, b"floor")
    if floor > seq:
        raise WireFormatError(f"floor {floor} is above seq {seq}: an agent offers what it sends")
    return EntryAddress(agent_id.decode("ascii"), seq, floor)


def _read_count(fields: Mapping[bytes, bytes], name: bytes) -> int:
    data = entry_field(fields, name)
    if not _COUNT.fullmatch(data) or int(data) > MAX_EXACT_INTEGER:
        raise WireFormatError(f"{name.decode()} is no integer from 1 to {MAX_EXACT_INTEGER}")
    return int(data)


def entry_field(fields: Mapping[bytes, bytes], name: bytes) -> bytes:
    """The field `name` of an entry.

    Raises:
        WireFormatError: If there is none.
    """
    data = fields.get(name)
    if data is None:
        raise WireFormatError(f"the entry has no field {name.decode()!r}")
    return data
