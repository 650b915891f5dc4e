"""Many small integers in few bytes: the best of three layouts, each followed by zstd.

```
layout u8 (1 = bytes, 2 = nibbles, 3 = gaps) | sections (see sections.py)
bytes:    i8 [n] | i32 [w]
nibbles:  u8 [(n+1)/2] | i8 [b] | i32 [w]        low nibble first; an odd n ends in a nibble of 0
gaps:     g u32 | u8 [g] | i8 [k] | i32 [w]      of the k integers that are not 0
```
A nibble of -8 stands for the next of the b bytes, and a byte of -128 for the next of the w words,
so that rare large integers do not make the others wider. A gap is the number of zeros before an
integer, as bytes of 255 for each 255 of them and one byte for the rest.

Weights that change by a few steps of their grid have an entropy of one to three bits. Two nibbles a
byte with zstd's Huffman coding come within 6 % of that; below about a tenth of non-zeros gaps are
better, above three bits bytes are.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.sections import inflate, pack_section, take_section

__all__ = ["LARGEST", "Changes", "pack_integers", "unpack_integers", "unzigzag", "zigzag"]

LARGEST: Final = (1 << 23) - 1
"""Integers up to this size can be packed; float32 holds twice as many exactly."""

_BYTES: Final = 1
_NIBBLES: Final = 2
_GAPS: Final = 3

_TRY_ALL: Final = 1 << 17
"""Up to so many integers all layouts are tried; beyond, one is chosen by what it depends on."""
_SPARSE: Final = 0.1
_NARROW: Final = 0.02

_GAP_BYTES: Final = struct.Struct("<I")
_SIGN_SHIFT: Final = np.int32(31)
_ONE: Final = np.uint32(1)
_NIBBLE_ESCAPE: Final = -8
_BYTE_ESCAPE: Final = -128
_LONG_GAP: Final = 255


def _nibble_pairs() -> NDArray[np.uint16]:
    """For each byte its two nibbles, sign-extended, as the two bytes of a little-endian word."""
    codes = np.arange(256, dtype=np.uint8)
    pairs = np.stack([codes << 4, codes & 0xF0], axis=1).view(np.int8) >> 4
    return pairs.view("<u2").reshape(-1).astype(np.uint16)


_PAIRS: Final = _nibble_pairs()


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Integers of n positions, those that are not named being 0.

    Attributes:
        positions: `int64 [k]`, rising; None: all n in their order.
        values: `float32 [k]` or `[n]`, whole numbers.
    """

    positions: NDArray[np.int64] | None
    values: NDArray[np.float32]


def zigzag(step: NDArray[np.int32]) -> NDArray[np.uint32]:
    """0, -1, 1, -2, … become 0, 1, 2, 3, …."""
    sign = (step >> _SIGN_SHIFT).view(np.uint32)
    return (step.view(np.uint32) << _ONE) ^ sign


def unzigzag(words: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The inverse of `zigzag`."""
    sign = (words & _ONE).view(np.int32)
    np.negative(sign, out=sign)
    return ((words >> _ONE) ^ sign.view(np.uint32)).view(np.int32)


def pack_integers(values: NDArray[np.float32]) -> bytes:
    """`values` in the smallest of the layouts.

    Args:
        values: `float32 [n]`, whole numbers of size up to `LARGEST`; left as they are.
    """
    count = len(values)
    limit = max(float(values.max()), -float(values.min()))
    wide = b""
    if limit > -_BYTE_ESCAPE - 1:
        small, wide = _escape_words(values)
    else:
        small = values.astype(np.int8)
    filled = int(np.count_nonzero(small))
    over = np.flatnonzero(_beyond_nibble(small)) if limit >= -_NIBBLE_ESCAPE else None
    narrow = over is None or len(over) < _NARROW * count
    wide_section = pack_section(wide)
    if count > _TRY_ALL:
        if filled < _SPARSE * count:
            return _pack_gaps(small) + wide_section
        return (_pack_nibbles(small, over) if narrow else _pack_bytes(small)) + wide_section
    candidates = [_pack_nibbles(small, over)]
    if not narrow:
        candidates.append(_pack_bytes(small))
    if 4 * filled < count:
        candidates.append(_pack_gaps(small))
    return min(candidates, key=len) + wide_section


def _escape_words(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], bytes]:
    over = np.abs(values) > -_BYTE_ESCAPE - 1
    small = np.where(over, np.float32(_BYTE_ESCAPE), values).astype(np.int8)
    return small, values[over].astype("<i4").tobytes()


def _beyond_nibble(small: NDArray[np.int8]) -> NDArray[np.bool_]:
    # One comparison: from -7 to 7 becomes from 0 to 14.
    shifted = (small - np.int8(_NIBBLE_ESCAPE + 1)).view(np.uint8)
    found: NDArray[np.bool_] = shifted > -2 * (_NIBBLE_ESCAPE + 1)
    return found


def _pack_bytes(small: NDArray[np.int8]) -> bytes:
    return bytes((_BYTES,)) + pack_section(small.data.cast("B"))


def _pack_nibbles(small: NDArray[np.int8], over: NDArray[np.int64] | None) -> bytes:
    padded = np.zeros(len(small) + len(small) % 2, np.int8)
    padded[: len(small)] = small
    escaped = b""
    if over is not None and len(over):
        escaped = small[over].tobytes()
        padded[over] = _NIBBLE_ESCAPE
    codes = padded.view(np.uint8)
    pairs = codes[1::2] << 4
    pairs |= codes[0::2] & 15
    return bytes((_NIBBLES,)) + pack_section(pairs.data) + pack_section(escaped)


def _pack_gaps(small: NDArray[np.int8]) -> bytes:
    positions = _filled(small)
    gaps = positions.copy()
    gaps[1:] -= positions[:-1] + 1
    if len(gaps) and int(gaps.max()) < _LONG_GAP:
        stream = gaps.astype(np.uint8)
    else:
        runs, rest = np.divmod(gaps, _LONG_GAP)
        stream = np.full(len(positions) + int(runs.sum()), _LONG_GAP, np.uint8)
        stream[np.cumsum(runs + 1) - 1] = rest
    head = bytes((_GAPS,)) + _GAP_BYTES.pack(len(stream))
    return head + pack_section(stream.data) + pack_section(small[positions].data.cast("B"))


def _filled(small: NDArray[np.int8]) -> NDArray[np.int64]:
    """Positions of what is not 0, looked for among eight at a time first."""
    whole = len(small) // 8 * 8
    blocks = np.flatnonzero(small[:whole].view(np.uint64))
    rows, columns = np.nonzero(small[:whole].reshape(-1, 8)[blocks])
    found = blocks[rows] * 8 + columns
    return np.concatenate((found, np.flatnonzero(small[whole:]) + whole))


class _Reader:
    """Goes through the sections of one frame."""

    def __init__(self, data: memoryview, start: int) -> None:
        self.data = data
        self.at = start

    def section(self, raw_bytes: int, name: str) -> bytes | memoryview:
        stored, self.at = take_section(self.data, self.at, raw_bytes, name)
        return inflate(stored, raw_bytes, name)

    def finish(self) -> None:
        if self.at != len(self.data):
            raise WireFormatError(f"{len(self.data) - self.at} bytes after the last section")


def unpack_integers(data: memoryview, count: int) -> Changes:
    """The inverse of `pack_integers`.

    Args:
        data: Exactly what `pack_integers` returned.
        count: n, already checked against what the caller is ready to allocate.

    Raises:
        WireFormatError: If the layout is unknown, sections do not fill `data`, one does not hold
            what those before it announce, or a position is beyond n.
    """
    layout = data[0] if len(data) else 0
    reader = _Reader(data, 1)
    positions = None
    match layout:
        case 1:  # _BYTES
            small = np.frombuffer(reader.section(count, "the bytes"), np.int8)
        case 2:  # _NIBBLES
            small = _unpack_nibbles(reader, count)
        case 3:  # _GAPS
            positions, small = _unpack_gaps(reader, count)
        case _:
            raise WireFormatError(
                f"integers in layout {layout}; this side reads {_BYTES} to {_GAPS}: upgrade it"
            )
    values = small.astype(np.float32)
    escapes = np.flatnonzero(small == _BYTE_ESCAPE)
    wide = reader.section(4 * len(escapes), "the words")
    reader.finish()
    if len(escapes):
        values[escapes] = _checked_words(wide)
    return Changes(positions, values)


def _checked_words(data: bytes | memoryview) -> NDArray[np.int32]:
    words = np.frombuffer(data, "<i4").astype(np.int32, copy=False)
    # No abs(): that of the smallest integer is itself.
    if int(words.max()) > LARGEST or int(words.min()) < -LARGEST:
        raise WireFormatError(f"an integer of the frame is beyond {LARGEST} in size")
    return words


def _unpack_nibbles(reader: _Reader, count: int) -> NDArray[np.int8]:
    pairs = np.frombuffer(reader.section((count + 1) // 2, "the nibbles"), np.uint8)
    padded = np.take(_PAIRS, pairs).astype("<u2", copy=False).view(np.int8)
    small: NDArray[np.int8] = padded[:count]
    if count % 2 and padded[count]:
        raise WireFormatError("the nibble after the last integer is not 0")
    escapes = np.flatnonzero(small == _NIBBLE_ESCAPE)
    small[escapes] = np.frombuffer(reader.section(len(escapes), "the bytes"), np.int8)
    return small


def _unpack_gaps(reader: _Reader, count: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    if len(reader.data) - reader.at < _GAP_BYTES.size:
        raise WireFormatError("the frame ends before the gaps")
    (size,) = _GAP_BYTES.unpack_from(reader.data, reader.at)
    reader.at += _GAP_BYTES.size
    if size > count + count // _LONG_GAP:
        raise WireFormatError(f"{size} bytes of gaps, among {count} integers")
    stream = np.frombuffer(reader.section(size, "the gaps"), np.uint8)
    ends = np.flatnonzero(stream != _LONG_GAP)  # a gap's last byte
    if size and (not len(ends) or ends[-1] != size - 1):
        raise WireFormatError("the gaps end within one")
    positions = np.cumsum(stream, dtype=np.int64)[ends]
    positions += np.arange(len(ends))
    if len(ends) and positions[-1] >= count:
        raise WireFormatError(f"the gaps lead to integer {positions[-1]} of {count}")
    values = np.frombuffer(reader.section(len(ends), "the bytes"), np.int8)
    return positions, values
