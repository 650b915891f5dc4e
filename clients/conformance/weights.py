"""Vectors of snapshots and diffs."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from clients.conformance.vectors import Collection
from rl4sys_stream.wire.compact import encode_compact_diff, encode_compact_snapshot
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.grid import GridWeights, round_to_grid
from rl4sys_stream.wire.sections import pack_section
from rl4sys_stream.wire.snapshot import Weights, encode_snapshot

__all__ = ["add_diffs", "add_snapshots"]

F32 = np.float32
_MAX_PARAMETERS: Final = 1000
_SNAPSHOT: Final = struct.Struct("<4sBBHIQQ")
_DIFF_BYTES: Final = 48
"""Of a compact diff's header."""


@dataclass(frozen=True, slots=True)
class _Vector:
    """One frame and what becomes of it; `base` is None of a snapshot."""

    name: str
    says: str
    frame: bytes
    result: Weights | None = None
    refused: str = ""
    base: Weights | None = None


def _drawn(seed: int, shapes: dict[str, tuple[int, ...]], size: float = 0.25) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights.from_tensors(
        {name: (size * rng.standard_normal(shape)).astype(F32) for name, shape in shapes.items()}
    )


_NET: Final = _drawn(
    1,
    {
        "pi.0.weight": (12, 40),
        "pi.0.bias": (40,),
        "pi.1.weight": (40, 5),
        "pi.1.bias": (5,),
        "log_std": (),
    },
)
"""726 numbers: enough for zstd and for long gaps."""

_TINY: Final = _drawn(2, {"a": (3,), "b": (), 'ü "c"': (2, 2)})
"""Eight numbers, in tensors whose names need an escape."""

_BITS: Final = Weights.from_tensors(
    {
        "any": np.array(
            [0, 0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000,
             0xFFC12345, 0x7F800001], np.uint32
        ).view(F32)
    }
)  # fmt: skip
"""Both zeros, subnormal numbers, infinities and several NaN."""


def _moved(weights: Weights, change: NDArray[np.float32]) -> Weights:
    return Weights(weights.layout, (weights.flat + change).astype(F32))


def _on_grid(weights: Weights, exponent: int) -> GridWeights:
    return round_to_grid(weights, [exponent] * len(weights.layout.names))


def _valid_snapshots() -> Iterator[_Vector]:
    yield _Vector("exact", "A net as float32.", encode_snapshot(_NET), _NET)
    yield _Vector("exact_tiny", "Sections too small to compress.", encode_snapshot(_TINY), _TINY)
    yield _Vector("exact_bits", "NaN, infinities, -0.0.", encode_snapshot(_BITS), _BITS)
    grid = _on_grid(_NET, -8)
    yield _Vector("compact", "On a grid of 2^-8.", encode_compact_snapshot(grid), grid.weights)
    mixed = round_to_grid(_NET, [-12, -3, -20, 4, 103])
    says = "Exponents of many sizes, a tensor that is 0."
    yield _Vector("compact_mixed", says, encode_compact_snapshot(mixed), mixed.weights)
    tiny = _on_grid(_TINY, -24)
    says = "The finest grid that the largest weights allow."
    yield _Vector("compact_fine", says, encode_compact_snapshot(tiny), tiny.weights)


def _framed(layout: object, count: int, *, planes: bytes = b"", digest: int = 0) -> bytes:
    """An exact snapshot of any layout."""
    data = layout if isinstance(layout, bytes) else json.dumps(layout).encode()
    return _SNAPSHOT.pack(b"RL4W", 1, 0, 0, len(data), count, digest) + data + planes


def _cut_and_changed(frame: bytes, cuts: Sequence[int]) -> Iterator[tuple[str, bytes, str]]:
    """What both kinds of frames refuse alike."""
    yield "empty", b"", "format"
    for at in cuts:
        yield f"cut_at_{at}", frame[:at], "format"
    yield "cut_by_1", frame[:-1], "format"
    yield "byte_too_many", frame + b"\0", "format"
    yield "wrong_magic", b"RL4X" + frame[4:], "format"
    yield "unknown_version", frame[:4] + b"\2" + frame[5:], "format"
    yield "unknown_kind", frame[:5] + b"\x09" + frame[6:], "format"


def _refused_snapshots() -> Iterator[_Vector]:
    exact, compact = encode_snapshot(_TINY), encode_compact_snapshot(_on_grid(_TINY, -10))
    for kind, frame in (("exact", exact), ("compact", compact)):
        for name, data, error in _cut_and_changed(frame, (31, 40, 60)):
            yield _Vector(f"{kind}_{name}", "", data, refused=error)
        huge = frame[:12] + struct.pack("<Q", 1 << 60) + frame[20:]
        yield _Vector(f"{kind}_huge", "", huge, refused="limit")
        other = frame[:12] + struct.pack("<Q", 9) + frame[20:]
        yield _Vector(f"{kind}_count_of_another_layout", "", other, refused="format")
        layout_bytes = frame[:8] + struct.pack("<I", 1 << 31) + frame[12:]
        yield _Vector(f"{kind}_layout_beyond_the_frame", "", layout_bytes, refused="format")
    yield _Vector("reserved_bits", "", exact[:6] + b"\1" + exact[7:], refused="format")
    flipped = exact[:20] + bytes([exact[20] ^ 1]) + exact[21:]
    yield _Vector("exact_wrong_digest", "", flipped, refused="digest")
    damaged = exact[:-3] + bytes([exact[-3] ^ 1]) + exact[-2:]
    yield _Vector("exact_damaged_plane", "One bit of a weight.", damaged, refused="digest")
    flipped = compact[:20] + bytes([compact[20] ^ 1]) + compact[21:]
    yield _Vector("compact_wrong_layout_digest", "", flipped, refused="digest")
    flipped = compact[:28] + bytes([compact[28] ^ 1]) + compact[29:]
    yield _Vector("compact_wrong_digest", "", flipped, refused="digest")
    at = _first_code(compact)
    coarser = compact[:at] + bytes([compact[at] | 128]) + compact[at + 1 :]
    yield _Vector("compact_coarser", "A snapshot has no grid before.", coarser, refused="format")
    tensors = compact[:6] + struct.pack("<H", 4) + compact[8:]
    yield _Vector("compact_tensors_of_another_layout", "", tensors, refused="format")
    beyond = compact[:-4] + b"\xff" * 4  # the highest plane is the last one
    yield _Vector("compact_beyond_the_grid", "2^22 steps or more.", beyond, refused="format")
    yield from _refused_layouts()
    yield from _refused_sections()


def _first_code(compact: bytes) -> int:
    (layout_bytes,) = struct.unpack_from("<I", compact, 8)
    return 44 + int(layout_bytes)


def _refused_layouts() -> Iterator[_Vector]:
    def tensor(**changes: object) -> dict[str, object]:
        return {"name": "a", "dtype": "<f4", "shape": [2]} | changes

    for name, layout, count in (
        ("no_json", b"[{", 2),
        ("no_tensors", [], 0),
        ("double_precision", [tensor(dtype="<f8")], 2),
        ("big_endian", [tensor(dtype=">f4")], 2),
        ("name_twice", [tensor(), tensor()], 4),
        ("no_name", [tensor(name="")], 2),
        ("long_name", [tensor(name="n" * 257)], 2),
        ("axis_of_0", [tensor(shape=[0])], 0),
        ("negative_axis", [tensor(shape=[-2])], 2),
        ("nine_axes", [tensor(shape=[1] * 9)], 1),
        ("unknown_key", [tensor(order="F")], 2),
        ("of_brackets", b"[" * 3000, 2),
    ):
        yield _Vector(f"layout_{name}", "", _framed(layout, count), refused="format")


def _refused_sections() -> Iterator[_Vector]:
    layout = [{"name": "a", "dtype": "<f4", "shape": [600]}]
    raw = bytes(600)
    rest = pack_section(raw) * 3
    digest = xxhash.xxh3_64_intdigest(bytes(2400))

    def one(name: str, section: bytes) -> _Vector:
        frame = _framed(layout, 600, planes=section + rest, digest=digest)
        return _Vector(f"section_{name}", "", frame, refused="format")

    def stored(data: bytes) -> bytes:
        return struct.pack("<I", len(data)) + data

    yield one("longer_than_raw", stored(bytes(601)))
    yield one("beyond_the_frame", struct.pack("<I", 1 << 30))
    yield one("no_zstd", stored(b"nonsense"))
    yield one("of_a_bomb", stored(zstandard.ZstdCompressor().compress(bytes(1 << 22))))
    yield one("of_less", stored(zstandard.ZstdCompressor().compress(bytes(599))))
    without = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    yield one("without_its_size", stored(without))
    whole = zstandard.ZstdCompressor().compress(raw)
    yield one("of_two_frames", stored(whole + whole))
    yield one("cut", stored(whole[:-2]))


def _valid_diffs() -> Iterator[_Vector]:
    rng = np.random.default_rng(5)
    size = _NET.layout.size
    step = (1e-3 * rng.standard_normal(size)).astype(F32)
    yield _exact("exact", "Every weight a little.", _NET, _moved(_NET, step))
    yield _exact("exact_nothing", "No weight at all.", _NET, _NET)
    bits = Weights(_BITS.layout, _BITS.flat[::-1].copy())
    yield _exact("exact_bits", "NaN, infinities, and the sign.", _BITS, bits)
    zeros = Weights(_TINY.layout, np.zeros(8, F32))
    yield _exact("exact_across_zero", "From above 0 to below it.", zeros, _TINY)

    base = _on_grid(_NET, -8)
    few = (np.rint(rng.normal(0, 1.2, size)) * 2.0**-8).astype(F32)
    yield _compact("nibbles", 2, base, _on_grid(_moved(base.weights, few), -8))
    few[::40] = 100 * 2.0**-8
    yield _compact("nibbles_and_bytes", 2, base, _on_grid(_moved(base.weights, few), -8))
    wide = np.rint(rng.normal(0, 30, size))
    wide[[3, 700]] = 5000, -70000
    moved = _on_grid(_moved(base.weights, (wide * 2.0**-8).astype(F32)), -8)
    yield _compact("bytes_and_words", 1, base, moved)
    sparse = np.zeros(size, F32)
    sparse[[0, 1, 9, 300]] = 2.0**-8
    sparse[[556, 725]] = -4.0, 9.0
    yield _compact("gaps", 3, base, _on_grid(_moved(base.weights, sparse), -8))
    yield _compact("gaps_of_nothing", 3, base, base)
    far = np.zeros(size, F32)
    far[510] = 2.0**-8  # two whole runs of 255, and a rest of 0
    yield _compact("gap_of_510", 3, base, _on_grid(_moved(base.weights, far), -8))

    odd = round_to_grid(_NET, [-12, -8, -9, -5, -24])
    coarse = round_to_grid(_moved(odd.weights, step), [-8, -8, -12, 1, -3])
    says = "Some grids coarser, some finer, some as before."
    frame = _known(encode_compact_diff(odd, coarse))
    yield _Vector("regrid", says, frame, coarse.weights, base=odd.weights)
    halves = Weights(_TINY.layout, np.array([0.5, 1.5, -0.5, -1.5, 2.5, -2.5, 0.25, 0.75], F32))
    fine, whole = _on_grid(halves, -2), _on_grid(Weights(halves.layout, halves.flat * 2), 0)
    says = "Halves go up, below 0 as well."
    yield _Vector(
        "regrid_halves", says, _known(encode_compact_diff(fine, whole)), whole.weights,
        base=fine.weights,
    )  # fmt: skip
    tiny = _on_grid(_TINY, -6)
    moved = _on_grid(_moved(_TINY, np.full(8, 0.1, F32)), -6)
    frame = _known(encode_compact_diff(tiny, moved))
    yield _Vector("tiny", "Sections too small to compress.", frame, moved.weights,
                  base=tiny.weights)  # fmt: skip


def _known(frame: bytes | None) -> bytes:
    if frame is None:
        raise ValueError("these two have no diff")
    return frame


def _exact(name: str, says: str, base: Weights, new: Weights) -> _Vector:
    return _Vector(name, says, encode_diff(base, new), new, base=base)


def _compact(name: str, layout: int, base: GridWeights, new: GridWeights) -> _Vector:
    frame = _known(encode_compact_diff(base, new))
    found = frame[_DIFF_BYTES + len(base.exponents)]
    if found != layout:
        raise ValueError(f"{name} came out in layout {found}")
    return _Vector(name, f"Integers in layout {layout}.", frame, new.weights, base=base.weights)


def _refused_diffs() -> Iterator[_Vector]:
    exact = encode_diff(_TINY, _moved(_TINY, np.full(8, 0.01, F32)))
    base = _on_grid(_TINY, -6)
    new = _on_grid(_moved(_TINY, np.full(8, 0.1, F32)), -6)
    compact = _known(encode_compact_diff(base, new))
    for kind, start, frame in (("exact", _TINY, exact), ("compact", base.weights, compact)):
        for name, data, error in _cut_and_changed(frame, (39, 50)):
            yield _Vector(f"{kind}_{name}", "", data, refused=error, base=start)
        yield _Vector(f"{kind}_for_another_base", "", frame, refused="digest", base=new.weights)
        yield _Vector(f"{kind}_for_another_layout", "", frame, refused="digest", base=_NET)
        at = 39  # of the result's digest, in both
        wrong = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
        yield _Vector(f"{kind}_wrong_digest", "", wrong, refused="digest", base=start)
    snapshot = encode_snapshot(_TINY)
    yield _Vector("snapshot", "A snapshot is no diff.", snapshot, refused="format", base=_TINY)
    at = _DIFF_BYTES
    coarse = compact[:at] + bytes([compact[at] | 128]) + compact[at + 1 :]
    says = "A step that nobody took: the grid is the same."
    coarser = compact[:at] + bytes([compact[at] + 1]) + compact[at + 1 :]
    yield _Vector("compact_other_grid", "", coarser, refused="digest", base=base.weights)
    yield _Vector("compact_regrid_onto_the_same", says, coarse, result=new.weights,
                  base=base.weights)  # fmt: skip
    yield from _refused_integers(base, compact[: _DIFF_BYTES + 3])


def _refused_integers(base: GridWeights, head: bytes) -> Iterator[_Vector]:
    def sections(*parts: bytes) -> bytes:
        return b"".join(pack_section(part) for part in parts)

    word = struct.pack("<i", 1 << 23)
    gaps = struct.pack("<I", 1)
    for name, integers in {
        "none": b"",
        "layout_0": b"\0" + sections(bytes(8), b""),
        "layout_4": b"\4" + sections(bytes(8), b""),
        "nibbles_of_7": b"\2" + sections(bytes(3), b"", b""),
        "escape_without_byte": b"\2" + sections(b"\x08\0\0\0", b"", b""),
        "escape_without_word": b"\1" + sections(b"\x80" + bytes(7), b""),
        "byte_without_escape": b"\2" + sections(bytes(4), b"\1", b""),
        "word_too_large": b"\1" + sections(b"\x80" + bytes(7), word),
        "word_too_small": b"\1" + sections(b"\x80" + bytes(7), struct.pack("<i", -(1 << 31))),
        "gaps_cut": b"\3" + gaps[:2],
        "gaps_too_many": b"\3" + struct.pack("<I", 9) + sections(bytes(9), bytes(9), b""),
        "gap_beyond_the_end": b"\3" + gaps + sections(b"\x08", b"\1", b""),
        "gap_without_end": b"\3" + gaps + sections(b"\xff", b"", b""),
        "bytes_after_the_words": b"\1" + sections(bytes(8), b"") + b"\0",
    }.items():
        frame = head + integers
        yield _Vector(f"integers_{name}", "", frame, refused="format", base=base.weights)


def _odd_nibbles() -> Iterator[_Vector]:
    """An odd number of integers, honest and not."""
    start = Weights.from_tensors({"a": np.array([1, 2, 3], F32)})
    base = _on_grid(start, 0)
    new = _on_grid(_moved(start, np.array([1, -7, 7], F32)), 0)
    frame = _known(encode_compact_diff(base, new))
    says = "Half a byte is left."
    yield _Vector("odd_nibbles", says, frame, new.weights, base=base.weights)
    filled = bytearray(frame)
    filled[-9] |= 0x50  # the last nibble, before the two empty sections
    yield _Vector("odd_nibbles_filled", says, bytes(filled), refused="format", base=base.weights)


def _weights(collection: Collection, weights: Weights) -> dict[str, object]:
    """What a reader must come to."""
    name = f"weights/{weights.digest()[:16]}.f32"
    return {
        "layout": json.loads(weights.layout.to_json()),
        "layout_digest": weights.layout.digest,
        "digest": weights.digest(),
        "flat": collection.add(name, weights.flat.astype("<f4").tobytes()),
    }


def _describe(
    collection: Collection, folder: str, vectors: Iterator[_Vector]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in vectors:
        entry: dict[str, Any] = {"name": one.name, "says": one.says}
        entry["frame"] = collection.add(f"{folder}/{one.name}.bin", one.frame)
        if one.base is not None:
            entry["base"] = _weights(collection, one.base)
        if one.result is None:
            entry["refused"] = one.refused
        else:
            entry["decodes"] = _weights(collection, one.result)
        found.append(entry)
    return found


def add_snapshots(collection: Collection) -> None:
    """`snapshots.json`, the frames, and the weights in them."""
    vectors = [
        *_describe(collection, "snapshots", _valid_snapshots()),
        *_describe(collection, "snapshots", _refused_snapshots()),
    ]
    for vector in vectors:
        vector["max_parameters"] = _MAX_PARAMETERS
    collection.describe("snapshots.json", vectors)


def add_diffs(collection: Collection) -> None:
    """`diffs.json`, the frames, and the weights before and after."""
    made = (_valid_diffs(), _refused_diffs(), _odd_nibbles())
    collection.describe(
        "diffs.json", [one for group in made for one in _describe(collection, "diffs", group)]
    )
