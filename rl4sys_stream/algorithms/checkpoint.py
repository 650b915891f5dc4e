"""An `AlgorithmState` as bytes and back. No pickle, no `torch.load`: nothing here can run code.

```
"RL4C" | format u8 | 0 u8 | 0 u16 | header_bytes u32 | digest u64 (xxh3_64 of all that follows)
       | header JSON | the arrays, raw, row-major, in the header's order
header: {"algorithm": "PPO", "numbers": {"num_timesteps": 2048, …},
         "arrays": [{"name": "pi", "dtype": "<f4", "shape": [4996]}, …]}
```
All numbers are little-endian. Every size is checked before anything is allocated, and decoded
arrays are read-only views into the bytes.
"""

import math
import struct
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import xxhash

from rl4sys_stream.algorithms.base import AlgorithmState, StateArray
from rl4sys_stream.errors import DigestError, WireFormatError, WireLimitError
from rl4sys_stream.wire.format import MAX_EXACT_INTEGER

__all__ = ["check_fits", "decode_state", "encode_state"]

CHECKPOINT_FORMAT: Final = 1
MAX_HEADER_BYTES: Final = 1 << 20
MAX_ARRAYS: Final = 4096

_MAGIC: Final = b"RL4C"
_PREFIX: Final = struct.Struct("<4sBBHIQ")
_ITEM_BYTES: Final = {"<f4": 4, "<f8": 8, "<i8": 8, "|u1": 1}

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Axis = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]

_NEXT_MOVE: Final = (
    "if algorithm_parameters have changed the network, change them back, or begin anew with "
    "`rl4sys-stream clients reset`"
)


class _ArrayJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One array in the header; its bytes follow in the same order."""

    name: Name
    dtype: Literal["<f4", "<f8", "<i8", "|u1"]
    shape: Annotated[tuple[Axis, ...], msgspec.Meta(max_length=8)]

    @property
    def size_bytes(self) -> int:
        """Bytes that the array occupies."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


class _HeaderJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The header."""

    algorithm: Name
    numbers: dict[Name, int | float]
    arrays: Annotated[list[_ArrayJson], msgspec.Meta(max_length=MAX_ARRAYS)]


def encode_state(state: AlgorithmState) -> bytes:
    """`state` as bytes; `decode_state` gives it back bit for bit."""
    described: list[_ArrayJson] = []
    payload: list[bytes] = []
    for name, array in state.arrays.items():
        little: StateArray = array.astype(array.dtype.newbyteorder("<"), copy=False)
        described.append(_ArrayJson(name, _dtype(name, little), little.shape))
        payload.append(little.tobytes())
    header = msgspec.json.encode(_HeaderJson(state.algorithm, dict(state.numbers), described))
    body = b"".join((header, *payload))
    digest = xxhash.xxh3_64_intdigest(body)
    return _PREFIX.pack(_MAGIC, CHECKPOINT_FORMAT, 0, 0, len(header), digest) + body


def _dtype(name: str, array: StateArray) -> Literal["<f4", "<f8", "<i8", "|u1"]:
    match array.dtype.str:
        case "<f4" | "<f8" | "<i8" | "|u1" as dtype:
            return dtype
        case dtype:
            raise WireFormatError(f"array {name!r} is {dtype}; a state holds {list(_ITEM_BYTES)}")


def decode_state(data: bytes) -> AlgorithmState:
    """The state in `data`. Whether it fits an algorithm is for its `load_state` to say.

    Raises:
        WireFormatError: If it is no checkpoint, of an unknown format, or its sizes contradict.
        WireLimitError: If its header is larger than a header may be.
        DigestError: If it is not what was encoded.
    """
    body, header_bytes = _checked_body(memoryview(data))
    try:
        header = msgspec.json.decode(body[:header_bytes], type=_HeaderJson)
    # ValueError: invalid UTF-8. RecursionError: a bomb of brackets.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireFormatError(f"the checkpoint's header does not parse: {error}") from None
    payload = body[header_bytes:]
    needed = sum(array.size_bytes for array in header.arrays)
    if needed != len(payload):
        raise WireFormatError(f"the checkpoint declares {needed} bytes, {len(payload)} follow")
    arrays: dict[str, StateArray] = {}
    for array in header.arrays:
        if array.name in arrays:
            raise WireFormatError(f"array {array.name!r} is in the checkpoint twice")
        flat = np.frombuffer(payload[: array.size_bytes], array.dtype)
        try:
            shaped = flat.reshape(array.shape)
        except ValueError:  # no elements, but axes that no array can have: 2**40 x 2**40 x 0
            raise WireFormatError(f"array {array.name!r} has an impossible shape") from None
        arrays[array.name] = shaped.astype(shaped.dtype.newbyteorder("="), copy=False)
        payload = payload[array.size_bytes :]
    return AlgorithmState(header.algorithm, header.numbers, arrays)


def _checked_body(data: memoryview) -> tuple[memoryview, int]:
    """What follows the fixed prefix, and how much of it is the JSON header."""
    if len(data) < _PREFIX.size:
        raise WireFormatError(f"{len(data)} bytes are no checkpoint; its prefix has {_PREFIX.size}")
    magic, version, zero, zeros, header_bytes, digest = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise WireFormatError(f"no checkpoint: it begins with {magic!r} instead of {_MAGIC!r}")
    if version != CHECKPOINT_FORMAT or zero or zeros:
        raise WireFormatError(
            f"checkpoint format {version} is unknown; this side reads {CHECKPOINT_FORMAT}"
        )
    if header_bytes > MAX_HEADER_BYTES:
        raise WireLimitError(f"a header of {header_bytes} bytes; {MAX_HEADER_BYTES} are allowed")
    body = data[_PREFIX.size :]
    if header_bytes > len(body):
        raise WireFormatError(f"the checkpoint ends within its header of {header_bytes} bytes")
    if xxhash.xxh3_64_intdigest(body) != digest:
        raise DigestError("the checkpoint is not what was stored; start from an older version")
    return body, header_bytes


def check_fits(state: AlgorithmState, own: AlgorithmState) -> None:
    """Check that an algorithm whose state is `own` can go on from `state`.

    Raises:
        WireFormatError: If the algorithm, a name, a shape or a dtype differs, or a value is not
            finite.
    """
    if state.algorithm != own.algorithm:
        raise WireFormatError(f"the checkpoint is of {state.algorithm}, not of {own.algorithm}")
    for theirs, ours in ((state.numbers, own.numbers), (state.arrays, own.arrays)):
        if theirs.keys() != ours.keys():
            raise WireFormatError(
                f"the checkpoint holds {sorted(theirs)}, not {sorted(ours)}; {_NEXT_MOVE}"
            )
    for name, number in state.numbers.items():
        if not 0 <= number <= MAX_EXACT_INTEGER:  # NaN is not, either
            raise WireFormatError(f"{name} in the checkpoint is {number}, which no counter can be")
    for name, array in own.arrays.items():
        given = state.arrays[name]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise WireFormatError(
                f"{name} in the checkpoint is {given.dtype} {list(given.shape)}; this network "
                f"needs {array.dtype} {list(array.shape)}; {_NEXT_MOVE}"
            )
        if not np.isfinite(given).all():
            raise WireFormatError(f"{name} in the checkpoint is not finite")
