"""32-bit words as four byte planes, each in a section of its own.

Sign and exponent bytes of neighbouring weights are alike, mantissa bytes are noise. Grouping the
bytes by significance and giving each plane a frame (so a Huffman table) of its own is worth 4 % on
small nets against one frame for all. Levels above 1 gain nothing: noise stays noise.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.sections import inflate, pack_section, take_section

__all__ = ["pack_planes", "unpack_planes"]

_PLANES: Final = 4


def pack_planes(words: NDArray[np.uint32]) -> bytes:
    """The four byte planes of `words`, lowest byte first.

    Args:
        words: `uint32 [n]`.

    Returns:
        Four sections (see sections.py), each of n raw bytes.
    """
    planes = np.ascontiguousarray(words.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4).T)
    return b"".join(pack_section(plane.data) for plane in planes)


def unpack_planes(data: memoryview, count: int) -> NDArray[np.uint32]:
    """The inverse of `pack_planes`.

    Args:
        data: Exactly what `pack_planes` returned.
        count: n, already checked against what the caller is ready to allocate.

    Returns:
        A fresh `uint32 [n]`.

    Raises:
        WireFormatError: If the sections do not fill `data`, or one does not hold n bytes.
    """
    sections = _split(data, count)
    words = np.empty(count, "<u4")
    columns = words.view(np.uint8).reshape(-1, _PLANES)
    for index, section in enumerate(sections):
        raw = inflate(section, count, f"byte plane {index}")
        columns[:, index] = np.frombuffer(raw, np.uint8)
    return words.astype(np.uint32, copy=False)


def _split(data: memoryview, count: int) -> list[memoryview]:
    """All four sections, found before the words are allocated."""
    sections: list[memoryview] = []
    start = 0
    for index in range(_PLANES):
        section, start = take_section(data, start, count, f"byte plane {index}")
        sections.append(section)
    if start != len(data):
        raise WireFormatError(f"{len(data) - start} bytes after the last byte plane")
    return sections
