"""Small integers in three layouts: exact, small, and nothing but what was packed."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.integers import pack_integers, unpack_integers, unzigzag, zigzag
from rl4sys_stream.wire.sections import pack_section
from tests.unit.wire.strategies import damaged, whole_numbers

BYTES, NIBBLES, GAPS = b"\1", b"\2", b"\3"


def dense(data: bytes, count: int) -> NDArray[np.float32]:
    """What `data` unpacks to, with its zeros."""
    changes = unpack_integers(memoryview(data), count)
    if changes.positions is None:
        return changes.values
    values = np.zeros(count, np.float32)
    values[changes.positions] = changes.values
    return values


def entropy_bytes(values: NDArray[np.float32]) -> float:
    """Shannon's bound for independent integers, in bytes."""
    _, counts = np.unique(values, return_counts=True)
    shares = counts / len(values)
    return -float((shares * np.log2(shares)).sum()) * len(values) / 8


@settings(max_examples=300, deadline=None)
@given(whole_numbers())
def test_integers_come_back_from_whatever_layout_was_smallest(values):
    """Of every size and density, with single huge ones among small ones."""
    before = values.copy()
    assert (dense(pack_integers(values), len(values)) == before).all()
    assert (values == before).all()


@pytest.mark.parametrize(
    ("limit", "density", "layout"), [(3, 0.9, NIBBLES), (60, 1.0, BYTES), (1, 0.01, GAPS)]
)
def test_each_kind_of_integers_has_its_layout(limit, density, layout):
    """Below and above the size up to which all three are tried."""
    rng = np.random.default_rng(1)
    for count in (5_000, 200_001):
        values = rng.integers(-limit, limit + 1, count) * (rng.random(count) < density)
        data = pack_integers(values.astype(np.float32))
        assert data[:1] == layout
        assert (dense(data, count) == values).all()


@pytest.mark.parametrize("sigma", [0.2, 0.8, 1.5, 6.0])
def test_a_diff_of_many_weights_is_within_a_tenth_of_its_entropy(sigma):
    """What Gaussian steps of a grid cost at best, whatever the grid."""
    values = np.rint(np.random.default_rng(2).normal(0, sigma, 60_000)).astype(np.float32)
    assert len(pack_integers(values)) < 1.1 * entropy_bytes(values) + 200


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1))
def test_zigzag_puts_small_sizes_first_and_comes_back(numbers):
    """The smallest of all has no positive counterpart, and has a code all the same."""
    array = np.array(numbers, np.int32)
    codes = zigzag(array)
    assert codes.tolist() == [2 * n if n >= 0 else -2 * n - 1 for n in numbers]
    assert (unzigzag(codes) == array).all()


def section(raw: bytes) -> bytes:
    """Stored as it is."""
    return struct.pack("<I", len(raw)) + raw


NONE = section(b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "layout 0"),
        (b"\4" + section(bytes(10)) + NONE, "layout 4"),
        (BYTES + section(bytes(10)), "ends before the words"),
        (BYTES + section(bytes(10)) + NONE + b"\0", "after the last section"),
        (BYTES + section(bytes(11)) + NONE, "claims 11 bytes"),
        (BYTES + section(bytes(9)) + NONE, "no zstd frame"),
        (BYTES + section(b"\x80" + bytes(9)) + NONE, "the words"),
        (BYTES + section(b"\x80" + bytes(9)) + section(b"\0\0\0\x80"), "beyond"),
        (BYTES + section(b"\x80" + bytes(9)) + section(b"\0\0\x80\0"), "beyond"),
        (NIBBLES + section(bytes(5)), "ends before the bytes"),
        (NIBBLES + section(b"\x08" + bytes(4)) + NONE + NONE, "the bytes"),
        (GAPS, "ends before the gaps"),
        (
            GAPS + struct.pack("<I", 11) + section(bytes(11)) + section(bytes(11)),
            "11 bytes of gaps",
        ),
        (
            GAPS + struct.pack("<I", 1) + section(b"\x0a") + section(b"\1") + NONE,
            "integer 10 of 10",
        ),
        (GAPS + struct.pack("<I", 2) + section(b"\5\4") + section(b"\1\1") + NONE, "integer 10"),
        (GAPS + struct.pack("<I", 1) + section(b"\xff") + NONE + NONE, "end within one"),
        (GAPS + struct.pack("<I", 1) + section(b"\3") + section(b"") + NONE, "the bytes"),
        (GAPS + struct.pack("<I", 0) + NONE + NONE, "the words"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(data, message):
    """Ten integers are expected. Each message names the section."""
    with pytest.raises(WireFormatError, match=message):
        unpack_integers(memoryview(data), 10)


def test_a_section_does_not_say_how_much_it_holds():
    """Its reader knows; a declaration of more is refused before anything is allocated."""
    data = BYTES + pack_section(bytes(900)) + NONE
    with pytest.raises(WireFormatError, match="declares 900 bytes instead of 100"):
        unpack_integers(memoryview(data), 100)


def test_the_spare_nibble_of_an_odd_number_is_zero():
    """One encoding for one sequence, so that digests of frames mean something."""
    with pytest.raises(WireFormatError, match="nibble after"):
        unpack_integers(memoryview(NIBBLES + section(b"\x11\x11") + NONE + NONE), 3)


@settings(max_examples=200, deadline=None)
@given(st.data(), whole_numbers())
def test_damaged_integers_end_in_a_named_error_or_in_other_integers(data, values):
    """Nothing else is raised, and positions stay within the weights."""
    packed = data.draw(damaged(pack_integers(values)))
    try:
        changes = unpack_integers(memoryview(packed), len(values))
    except WireFormatError:
        return
    if changes.positions is None:
        assert len(changes.values) == len(values)
    else:
        assert len(changes.positions) == len(changes.values)
        assert (np.diff(changes.positions) > 0).all()
        assert not len(changes.positions) or changes.positions[0] >= 0
        assert not len(changes.positions) or changes.positions[-1] < len(values)
