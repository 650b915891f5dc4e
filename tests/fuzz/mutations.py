"""What hostile senders do to valid bytes; the same for Hypothesis and for the campaign.

All choices come from a `random.Random`: Hypothesis passes one whose draws it records and shrinks,
the campaign one that libFuzzer seeds.
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import zstandard

from tests.fuzz.containers import Fields, pack, unpack

__all__ = ["damaged", "damaged_bytes", "damaged_fields", "damaged_json", "zstd_bombs"]

DEEP = 5_000
"""Deeper than any recursion limit in use."""
HOSTILE_JSON = (
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"NaN",
    b"Infinity",
    b"-0.0",
    b"1.5",
    b"9007199254740993",
    b"9223372036854775808",
    b"18446744073709551616",
    b"1" + b"0" * 400,  # beyond any float
    b"1" * 5_000,  # beyond what Python reads as an integer
    b"-" + b"9" * 4_000,
    b'""',
    b'"\\ud800"',  # half a surrogate pair
    b'"\\u0000"',
    b'"\xff\xfe"',  # no UTF-8
    b'"' + b"x" * 10_000 + b'"',
    b"[]",
    b"{}",
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b"[" * 400 + b"]" * 400,  # below the limit, for whoever walks it afterwards
    b"[" + b"1," * 5_000 + b"1]",
    b"[" + b"[]," * 5_000 + b"[]]",
    b"[1099511627776,1099511627776,1099511627776,0]",
    b'[["<f4",[1]]]',
    b'{"x":1,"x":2}',
)
HUGE = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)
HOSTILE_TEXT = (
    b"",
    b"-1",
    b"0",
    b"00000001",
    b"+5",
    b" 7 ",
    b"1_000",
    b"1e9",
    b"9" * 16,
    b"9" * 5_000,
    "٣".encode(),  # a digit, but not of ours
    b"\0",
    b"\xff\xff",
    b"[::1",
    b"a:b@" * 50,
    b"redis://" * 500,
    b"x" * 10_000,
)


def damaged(data: bytes, rng: random.Random, *, fields: bool, other: bytes) -> bytes:
    """`data` after one to three mutations.

    Args:
        data: A valid input of a target.
        rng: Takes all choices.
        fields: Whether the target reads a container.
        other: A second input of the same target, to splice with.
    """
    for _ in range(rng.randint(1, 3)):
        if fields and rng.random() < 0.9:
            data = pack(damaged_fields(unpack(data), rng))
        elif rng.random() < 0.1:
            cut = rng.randint(0, len(data))
            data = data[:cut] + other[rng.randint(0, len(other)) :]
        else:
            data = damaged_value(data, rng)
    return data


def damaged_fields(fields: Fields, rng: random.Random) -> Fields:
    """One field damaged, dropped, repeated, renamed or exchanged with another."""
    found = list(fields)
    if not found:
        return ((b"h", rng.choice(HOSTILE_JSON)),)
    place = rng.randrange(len(found))
    name, value = found[place]
    match rng.randrange(12):
        case 0:
            del found[place]
        case 1:
            found.insert(rng.randrange(len(found) + 1), (name, value))
        case 2:
            found[place] = (damaged_bytes(name, rng)[:255], value)
        case 3:
            found[place] = (name, rng.choice(found)[1])
        case _:
            # A field may be a container again: the files of a folder hold records.
            inner = unpack(value)
            if name.endswith(b".seg") and inner and rng.random() < 0.8:
                found[place] = (name, pack(damaged_fields(inner, rng)))
            else:
                found[place] = (name, damaged_value(value, rng))
    return tuple(found)


def damaged_value(value: bytes, rng: random.Random) -> bytes:
    """One value damaged according to what it looks like."""
    if value[:1] in {b"{", b"["} and rng.random() < 0.8:
        return damaged_json(value, rng)
    if rng.random() < 0.15:
        return rng.choice(HOSTILE_TEXT)
    if rng.random() < 0.05:
        return rng.choice(HOSTILE_JSON)
    return damaged_bytes(value, rng)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """`data` with bits flipped, bytes set, removed, repeated or inserted, or a number made huge."""
    result = bytearray(data)
    place = rng.randint(0, max(len(result) - 1, 0))
    match rng.randrange(7):
        case 0 if result:
            result[place] ^= 1 << rng.randrange(8)
        case 1 if result:
            result[place] = rng.randrange(256)
        case 2:
            del result[place:]
        case 3:
            del result[place : place + rng.randint(1, 16)]
        case 4:
            piece = bytes(result[place : place + rng.randint(1, 64)])
            result[place:place] = piece * rng.randint(1, 4)
        case 5:
            width, code = rng.choice(((2, "<H"), (4, "<I"), (8, "<Q")))
            number = rng.choice(HUGE) & ((1 << 8 * width) - 1)
            result[place : place + width] = struct.pack(code, number)
        case _:
            result[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    return bytes(result)


def damaged_json(text: bytes, rng: random.Random) -> bytes:
    """A value or a key somewhere in the JSON `text` replaced, removed, added or written twice."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return damaged_bytes(text, rng)
    places: list[tuple[Any, Any]] = []
    _places(tree, places)
    if not places:
        return rng.choice(HOSTILE_JSON)
    parent, key = rng.choice(places)
    mark = "\ue000here\ue000"
    hostile = rng.choice(HOSTILE_JSON)
    match rng.randrange(8):
        case 0:
            del parent[key]
            return json.dumps(tree).encode()
        case 1 if isinstance(parent, dict):
            # The same key twice: readers differ in which one they believe.
            value = parent[key]
            parent[key] = mark
            name = json.dumps(key).encode()
            twice = json.dumps(value).encode() + b"," + name + b":" + hostile
            return _with(tree, mark, twice)
        case 2 if isinstance(parent, dict):
            parent[mark] = 0
            return _with(tree, mark, rng.choice((b'""', b'"\\ud800"', b'"' + b"k" * 5_000 + b'"')))
        case 3 if isinstance(parent, dict):
            parent[rng.choice(("v", "x", "steps", "token", "b" * 300))] = mark
            return _with(tree, mark, hostile)
        case 4:
            other, name = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[name]))
            return json.dumps(tree).encode()
        case _:
            parent[key] = mark
            return _with(tree, mark, hostile)


def _with(tree: object, mark: str, text: bytes) -> bytes:
    return json.dumps(tree).encode().replace(json.dumps(mark).encode(), text)


def _places(tree: object, found: list[tuple[Any, Any]]) -> None:
    if isinstance(tree, dict):
        items: list[tuple[Any, Any]] = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree[:20]))
    else:
        return
    for key, value in items:
        found.append((tree, key))
        _places(value, found)


def zstd_bombs(count: int, *, real: int = 1 << 26) -> tuple[bytes, ...]:
    """Frames that hold, claim, or make the reader prepare for, far more than `count` bytes."""
    honest = zstandard.ZstdCompressor(level=19).compress(bytes(real))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(real))
    # A frame header: magic, descriptor, window byte, content size. One that lies about its content.
    lying = _frame_header(count, window=0x58) + honest[_header_bytes(honest) :]
    wide = _frame_header(count, window=0xA8) + b"\x01\x00\x00"
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    repeated = skippable * 1000
    run = _frame_header(count, window=0x58) + (b"\xfb\xff\x1f\x00" * 100)  # 100 blocks of one byte
    return honest, silent, lying, wide, skippable, repeated, run


def _header_bytes(frame: bytes) -> int:
    return zstandard.frame_header_size(frame)


def _frame_header(content: int, *, window: int) -> bytes:
    # 0x80: a content size of four bytes and a window byte.
    return struct.pack("<IBBI", 0xFD2FB528, 0x80, window, content)


Mutate = Callable[[bytes, random.Random], bytes]
