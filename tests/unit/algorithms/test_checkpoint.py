"""States as bytes: exact there and back, and nothing but named errors on anything else."""

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.algorithms.base import AlgorithmState
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.errors import DigestError, WireError, WireFormatError, WireLimitError
from tests.unit.algorithms.samples import f32, make_ppo

STATE = AlgorithmState(
    algorithm="PPO",
    numbers={"steps": 2**53, "rate": 0.1 + 0.2, "whole": 3.0},
    arrays={
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "mean": np.array([np.pi, -0.0, 5e-324]),
        "step": f32(7.0),
        "count": np.array([-1, 2**62]),
        "generator": np.arange(256, dtype=np.uint8),
        "none": np.zeros((0, 4), np.float32),
    },
)
DATA = encode_state(STATE)
EMPTY_ARRAY = b'{"name":"a","dtype":"<f4","shape":[0]}'


def sealed(header: bytes, payload: bytes = b"") -> bytes:
    """A checkpoint with a right prefix around any header and payload."""
    body = header + payload
    digest = xxhash.xxh3_64_intdigest(body)
    return struct.pack("<4sBBHIQ", b"RL4C", 1, 0, 0, len(header), digest) + body


def test_a_state_comes_back_bit_for_bit() -> None:
    """Numbers keep their type, arrays their dtype, shape and last bit."""
    state = decode_state(DATA)
    assert state.algorithm == STATE.algorithm
    assert state.numbers == STATE.numbers
    assert [type(number) for number in state.numbers.values()] == [int, float, float]
    assert list(state.arrays) == list(STATE.arrays)
    for name, array in STATE.arrays.items():
        assert state.arrays[name].dtype == array.dtype
        assert state.arrays[name].shape == array.shape
        assert state.arrays[name].tobytes() == array.tobytes()
    assert encode_state(state) == DATA


def test_big_endian_and_strided_arrays_are_written_the_same() -> None:
    """The bytes do not depend on how an array lies in memory."""
    wide = np.zeros((2, 6), np.float32)
    wide[:, ::2] = STATE.arrays["w"]
    other = AlgorithmState(
        STATE.algorithm,
        STATE.numbers,
        {**STATE.arrays, "w": wide[:, ::2], "mean": STATE.arrays["mean"].astype(">f8")},
    )
    assert encode_state(other) == DATA


def test_a_state_of_another_element_type_is_not_written() -> None:
    """Better now than when somebody has to resume from it."""
    with pytest.raises(WireFormatError, match="'w'"):
        encode_state(AlgorithmState("PPO", {}, {"w": np.zeros(2, np.float16)}))


def test_every_changed_byte_is_noticed() -> None:
    """In the prefix, the header and the arrays alike."""
    for index in range(len(DATA)):
        spoiled = bytearray(DATA)
        spoiled[index] ^= 0x41
        with pytest.raises(WireError):
            decode_state(bytes(spoiled))


def test_every_cut_is_noticed() -> None:
    """Whatever is missing from the end, and what is too much."""
    for stop in range(len(DATA)):
        with pytest.raises(WireError):
            decode_state(DATA[:stop])
    with pytest.raises(DigestError):
        decode_state(DATA + b"\0")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"algorithm":"PPO","numbers":{},"arrays":[],"more":1}',
        b'{"algorithm":"","numbers":{},"arrays":[]}',
        b'{"algorithm":"PPO","numbers":{"a":null},"arrays":[]}',
        b'{"algorithm":"PPO","numbers":{},"arrays":[{"name":"a","dtype":"|O8","shape":[0]}]}',
        b'{"algorithm":"PPO","numbers":{},"arrays":[{"name":"a","dtype":"<f4","shape":[-1]}]}',
        b'{"algorithm":"PPO","numbers":{},"arrays":[{"name":"a","dtype":"<f4","shape":[1]}]}',
        b'{"algorithm":"P","numbers":{},"arrays":[{"name":"a","dtype":"<f4","shape":[%d,%d]}]}'
        % (1 << 40, 1 << 40),
        b'{"algorithm":"P","numbers":{},"arrays":[%b,%b]}' % ((EMPTY_ARRAY,) * 2),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(header: bytes) -> None:
    """Even under a right digest, which anybody can compute."""
    with pytest.raises(WireFormatError):
        decode_state(sealed(header))


def test_a_header_beyond_its_limit_is_not_parsed() -> None:
    """Parsing costs more than the bytes."""
    with pytest.raises(WireLimitError):
        decode_state(sealed(b" " * (1 << 20) + b"{}"))


@given(data=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_garbage_ends_in_a_wire_error(data: bytes) -> None:
    """Bare, behind a right prefix, and as a payload."""
    header = b'{"algorithm":"PPO","numbers":{},"arrays":[]}'
    for candidate in (
        data,
        sealed(data),
        sealed(data[:20], data[20:]),
        sealed(header, data + b"x"),
    ):
        with pytest.raises(WireError):
            decode_state(candidate)


@given(data=st.binary(min_size=8, max_size=8), start=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_no_decodable_state_breaks_an_algorithm(data: bytes, start: int) -> None:
    """Overwriting the body under a right digest: refused by name, or loaded whole."""
    valid = encode_state(make_ppo().state())
    body = bytearray(valid[20:])
    start %= len(body) - 8
    body[start : start + 8] = data
    header_bytes = struct.unpack_from("<I", valid, 8)[0]
    ppo = make_ppo(1)
    try:
        ppo.load_state(decode_state(sealed(bytes(body[:header_bytes]), bytes(body[header_bytes:]))))
    except WireError:
        pass
    else:
        assert np.isfinite(ppo.export().weights.flat).all()
