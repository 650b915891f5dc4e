"""The address of an entry: strict, and independent of the other fields."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.trajectory import EntryAddress, address_fields, decode_address

AGENT_IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
NUMBERS = st.integers(1, (1 << 53) - 1)


@settings(deadline=None)
@given(AGENT_IDS, NUMBERS, NUMBERS)
def test_every_address_comes_back(agent_id, one, other):
    """Whatever else the entry holds."""
    address = EntryAddress(agent_id, max(one, other), min(one, other))
    assert decode_address({**dict(address_fields(address)), b"h": b"\xff"}) == address


@pytest.mark.parametrize(
    ("field", "data"),
    [
        (b"seq", b"0"),
        (b"seq", b"-1"),
        (b"seq", b"+1"),
        (b"seq", b" 1"),
        (b"seq", b"1_0"),
        (b"seq", b"01"),
        (b"seq", b"1.0"),
        (b"seq", b""),
        (b"seq", b"1\n"),
        (b"seq", "١".encode()),
        (b"seq", b"9" * 16),
        (b"seq", b"9" * 5000),
        (b"floor", b"0"),
        (b"floor", b"8"),
        (b"agent_id", b""),
        (b"agent_id", b"a b"),
        (b"agent_id", b"a\n"),
        (b"agent_id", "ä".encode()),
        (b"agent_id", b"a" * 129),
    ],
)
def test_a_malformed_address_is_refused_by_name(field, data):
    """Numbers have one spelling, and a floor above the number is a contradiction."""
    fields = dict(address_fields(EntryAddress("a", 7, 7)))
    with pytest.raises(WireFormatError, match=field.decode()):
        decode_address({**fields, field: data})
    del fields[field]
    with pytest.raises(WireFormatError, match=field.decode()):
        decode_address(fields)


@pytest.mark.parametrize(
    "address",
    [
        EntryAddress("", 1, 1),
        EntryAddress("ä", 1, 1),
        EntryAddress("a", 0, 0),
        EntryAddress("a", 1 << 53, 1),
        EntryAddress("a", 1, 2),
    ],
)
def test_what_would_not_decode_is_not_encoded(address):
    """The sender learns of it, not the worker."""
    with pytest.raises(WireFormatError):
        address_fields(address)
