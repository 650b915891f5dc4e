"""Bytes of known length inside a frame, each stored raw or as one zstd frame.

```
section: stored_bytes u32 | that many bytes
```
Stored bytes as many as the raw ones are the raw ones; fewer are a zstd frame that declares its
content size. The raw length is never taken from the section itself: its reader knows it from what
came before, so that a section cannot make it allocate.
"""

import struct
from collections import deque
from typing import Final

import zstandard

from rl4sys_stream.errors import WireFormatError

__all__ = ["inflate", "pack_section", "take_section"]

_LENGTH: Final = struct.Struct("<I")
_LEVEL: Final = 1
_SMALL_WINDOW: Final = 1 << 20
_TINY: Final = 24
"""A zstd frame of fewer bytes than this is never the smaller one by much, and costs its call."""


# Made when they are needed and lent to one call at a time: making one takes longer than coding a
# small net with it, and none may be used by two threads at once. Both ends of a deque are atomic.
_compressors: Final[deque[zstandard.ZstdCompressor]] = deque()
_decompressors: Final[deque[zstandard.ZstdDecompressor]] = deque()


def _compress(raw: bytes | memoryview) -> bytes:
    try:
        coder = _compressors.pop()
    except IndexError:
        coder = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    packed = coder.compress(raw)
    _compressors.append(coder)
    return packed


def _decompress(stored: memoryview, raw_bytes: int) -> bytes:
    try:
        coder = _decompressors.pop()
    except IndexError:
        coder = zstandard.ZstdDecompressor()
    raw = coder.decompress(stored, max_output_size=raw_bytes, allow_extra_data=False)
    _decompressors.append(coder)  # after an error it is not lent again
    return raw


def pack_section(raw: bytes | memoryview) -> bytes:
    """`raw` as a section: compressed where that is smaller."""
    if len(raw) > _TINY:
        packed = _compress(raw)
        if len(packed) < len(raw):
            return _LENGTH.pack(len(packed)) + packed
    return _LENGTH.pack(len(raw)) + bytes(raw)


def take_section(data: memoryview, start: int, raw_bytes: int, name: str) -> tuple[memoryview, int]:
    """The stored bytes of the section that begins at `start`, and where the next one begins.

    Args:
        data: The frame.
        start: Within it.
        raw_bytes: What it holds; more are never stored.
        name: Of the section, for messages (`byte plane 2`).

    Raises:
        WireFormatError: If the frame ends before it does, or it claims more than it can hold.
    """
    if len(data) - start < _LENGTH.size:
        raise WireFormatError(f"the frame ends before {name}")
    (size,) = _LENGTH.unpack_from(data, start)
    start += _LENGTH.size
    if size > raw_bytes or size > len(data) - start:
        raise WireFormatError(
            f"{name} claims {size} bytes, of {raw_bytes} that it holds and {len(data) - start} "
            "that are left in the frame"
        )
    return data[start : start + size], start + size


def inflate(stored: memoryview, raw_bytes: int, name: str) -> bytes | memoryview:
    """What a section holds.

    Args:
        stored: From `take_section`.
        raw_bytes: What it holds, already checked against what the caller is ready to allocate.
        name: As in `take_section`.

    Raises:
        WireFormatError: If it does not hold exactly `raw_bytes`.
    """
    if len(stored) == raw_bytes:
        return stored
    try:
        # The library allocates what the frame declares, so the declaration is checked first.
        frame = zstandard.get_frame_parameters(stored)
        if frame.content_size != raw_bytes:
            raise WireFormatError(
                f"{name} declares {frame.content_size} bytes instead of {raw_bytes}"
            )
        # An honest encoder's window is below twice its content; zstd would buffer a larger one.
        if frame.window_size > max(2 * raw_bytes, _SMALL_WINDOW):
            raise WireFormatError(f"{name} asks for a window of {frame.window_size} bytes")
        raw = _decompress(stored, raw_bytes)
    except zstandard.ZstdError as error:
        raise WireFormatError(f"{name} is no zstd frame: {error}") from None
    if len(raw) != raw_bytes:
        raise WireFormatError(f"{name} holds {len(raw)} bytes instead of {raw_bytes}")
    return raw
