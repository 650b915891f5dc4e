"""Several named fields as one run of bytes, so that a fuzzer that knows only bytes can reach them.

Each field is name length u8, name, value length u32, value. Any bytes unpack: what is cut short
ends the field, so that no input of a fuzzer is wasted on the container itself.
"""

import struct
from collections.abc import Iterable

__all__ = ["Fields", "pack", "unpack"]

Fields = tuple[tuple[bytes, bytes], ...]

_VALUE = struct.Struct("<I")


def pack(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """`fields` as bytes; names are at most 255 bytes long."""
    parts: list[bytes] = []
    for name, value in fields:
        parts += (bytes([len(name)]), name, _VALUE.pack(len(value)), value)
    return b"".join(parts)


def unpack(data: bytes) -> Fields:
    """The fields in `data`, whatever it is."""
    fields, at = [], 0
    while at < len(data):
        start = at + 1
        name = data[start : start + data[at]]
        at = start + data[at]
        head = data[at : at + _VALUE.size].ljust(_VALUE.size, b"\0")
        at += _VALUE.size
        value = data[at : at + _VALUE.unpack(head)[0]]
        at += len(value)
        fields.append((name, value))
    return tuple(fields)
