"""Snapshots (§5), diffs (§6), and notices that carry one (§9)."""

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from tests.conformance.independent.refusal import RefusedError, refuse, require, strict_json, whole

__all__ = ["Model", "apply_diff", "follow_notice", "model_of", "read_snapshot"]

F32 = np.float32


@dataclass(frozen=True)
class Model:
    """Weights and how they are laid out: (name, shape) of each tensor."""

    layout: bytes
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    flat: NDArray[np.float32]

    @property
    def data(self) -> bytes:
        """The flat vector as bytes."""
        return self.flat.astype("<f4").tobytes()

    @property
    def layout_digest(self) -> int:
        """Of the canonical JSON."""
        return xxhash.xxh3_64_intdigest(self.layout)

    def spans(self) -> list[slice]:
        """Where each tensor lies."""
        found, at = [], 0
        for _, shape in self.tensors:
            size = int(np.prod(shape, dtype=np.int64))
            found.append(slice(at, at + size))
            at += size
        return found


def model_of(layout: list[dict[str, Any]], flat: NDArray[np.float32]) -> Model:
    """A model that a vector describes."""
    data = json.dumps(layout, separators=(",", ":"), ensure_ascii=False).encode()
    return Model(data, _read_layout(data), flat)


def _read_layout(data: bytes) -> tuple[tuple[str, tuple[int, ...]], ...]:
    tensors = strict_json(data)
    require(isinstance(tensors, list) and 1 <= len(tensors) <= 4096, "no layout")
    found = []
    for tensor in tensors:
        require(isinstance(tensor, dict), "no tensor")
        require(tensor.keys() == {"name", "dtype", "shape"}, "other keys than a tensor's")
        name, shape = tensor["name"], tensor["shape"]
        require(tensor["dtype"] == "<f4", "another element type")
        require(isinstance(name, str) and 1 <= len(name) <= 256, "no name")
        require(isinstance(shape, list) and len(shape) <= 8, "no shape")
        found.append((name, tuple(whole(axis, 1, 1 << 40) for axis in shape)))
    require(len({name for name, _ in found}) == len(found), "a name twice")
    return tuple(found)


class Reader:
    """Goes through a frame."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        require(size <= len(self.data) - self.at, "the frame is cut")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, pattern: str) -> tuple[Any, ...]:
        """The next numbers, without padding."""
        return struct.unpack("<" + pattern, self.take(struct.calcsize("<" + pattern)))

    def section(self, raw: int) -> bytes:
        """The next section, of `raw` raw bytes."""
        (stored,) = self.unpack("I")
        require(stored <= raw, "a section longer than its content")
        data = self.take(stored)
        if stored == raw:
            return data
        try:
            frame = zstandard.get_frame_parameters(data)
            require(frame.content_size == raw, "another size is declared")
            require(frame.window_size <= max(2 * raw, 1 << 20), "too large a window")
            coder = zstandard.ZstdDecompressor()
            found = coder.decompress(data, max_output_size=raw, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise RefusedError("format", str(error)) from None
        require(len(found) == raw, "another size than declared")
        return found

    def words(self, count: int) -> NDArray[np.uint32]:
        """Byte planes, to the end of the frame."""
        planes = [np.frombuffer(self.section(count), np.uint8) for _ in range(4)]
        self.end()
        weighed = (plane.astype(np.uint32) << np.uint32(8 * i) for i, plane in enumerate(planes))
        found: NDArray[np.uint32] = np.sum(list(weighed), axis=0, dtype=np.uint32)
        return found

    def end(self) -> None:
        """Nothing follows."""
        require(self.at == len(self.data), "bytes after the end")


def _unzigzag(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    wide = words.astype(np.int64)
    return np.where(wide % 2 == 0, wide // 2, -(wide + 1) // 2)


def read_snapshot(data: bytes, max_parameters: int) -> Model:
    """The model in a snapshot."""
    reader = Reader(data)
    magic, version, kind, tensors, layout_bytes, count = reader.unpack("4sBBHIQ")
    require(magic == b"RL4W" and version == 1 and kind in {0, 1}, "no snapshot")
    require(kind or not tensors, "reserved bits")
    named, digest = reader.unpack("Q16s") if kind else (None, reader.unpack("Q")[0])
    require(count <= max_parameters, "too many parameters", "limit")
    layout = reader.take(layout_bytes)
    described = _read_layout(layout)
    empty = Model(layout, described, np.empty(0, F32))
    spans = empty.spans()
    require(spans[-1].stop == count, "the layout has another size")
    if not kind:
        flat = reader.words(count).view(F32)
        found = Model(layout, described, flat)
        require(xxhash.xxh3_64_intdigest(found.data) == digest, "other weights", "digest")
        return found
    require(len(described) == tensors, "another number of tensors")
    require(empty.layout_digest == named, "another layout", "digest")
    codes = reader.take(tensors)
    require(all(code < 128 for code in codes), "no grid of a snapshot")
    words = reader.words(count)
    require((words < 1 << 23).all(), "beyond the grid")
    quanta = _unzigzag(words).astype(np.float64)
    for span, code in zip(spans, codes, strict=True):
        quanta[span] *= 2.0 ** (code - 24)
    found = Model(layout, described, quanta.astype(F32))
    require(xxhash.xxh3_128_digest(found.data) == digest, "other weights", "digest")
    return found


def apply_diff(base: Model, data: bytes) -> Model:
    """The model that a diff leads to."""
    reader = Reader(data)
    magic, version, kind = reader.unpack("4sBB")
    require(magic == b"RL4D" and version == 1 and kind in {1, 2}, "no diff")
    flat = _exact(base, reader) if kind == 1 else _compact(base, reader)
    return Model(base.layout, base.tensors, flat)


def _exact(base: Model, reader: Reader) -> NDArray[np.float32]:
    reserved, count, layout, start, result = reader.unpack("HQQQQ")
    require(not reserved, "reserved bits")
    size = len(base.flat)
    require((count, layout) == (size, base.layout_digest), "another layout", "digest")
    require(start == xxhash.xxh3_64_intdigest(base.data), "another base", "digest")
    steps = _unzigzag(reader.words(size))
    places = _ordered(base.flat.view(np.int32).astype(np.int64)) + steps
    wrapped = (places + (1 << 31)) % (1 << 32) - (1 << 31)
    flat = _ordered(wrapped).astype(np.int32).view(F32)
    data = flat.astype("<f4").tobytes()
    require(xxhash.xxh3_64_intdigest(data) == result, "other weights", "digest")
    return flat


def _ordered(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


def _compact(base: Model, reader: Reader) -> NDArray[np.float32]:
    tensors, layout, start, result = reader.unpack("HQ16s16s")
    same = (tensors, layout) == (len(base.tensors), base.layout_digest)
    require(same, "another layout", "digest")
    require(start == xxhash.xxh3_128_digest(base.data), "another base", "digest")
    codes = reader.take(tensors)
    steps = _integers(reader, len(base.flat)).astype(np.float64)
    flat = base.flat.astype(np.float64)  # exact, like binary32 wherever the digest is right
    with np.errstate(all="ignore"):
        for span, code in zip(base.spans(), codes, strict=True):
            grid = 2.0 ** (code % 128 - 24)
            if code >= 128:
                flat[span] = np.floor(flat[span] / grid + 0.5) * grid
            flat[span] += steps[span] * grid
        found = flat.astype(F32)
    data = found.astype("<f4").tobytes()
    require(xxhash.xxh3_128_digest(data) == result, "other weights", "digest")
    return found


def _integers(reader: Reader, count: int) -> NDArray[np.int64]:
    (layout,) = reader.unpack("B")
    positions = np.arange(count)
    if layout == 1:
        small = np.frombuffer(reader.section(count), np.int8).astype(np.int64)
    elif layout == 2:
        small = _nibbles(reader, count)
    elif layout == 3:
        positions, small = _gaps(reader, count)
    else:
        refuse("an unknown layout of integers")
    escaped = np.flatnonzero(small == -128)
    words = np.frombuffer(reader.section(4 * len(escaped)), "<i4").astype(np.int64)
    reader.end()
    require((np.abs(words) < 1 << 23).all(), "a word is too large")
    small[escaped] = words
    found = np.zeros(count, np.int64)
    found[positions] = small
    return found


def _nibbles(reader: Reader, count: int) -> NDArray[np.int64]:
    pairs = np.frombuffer(reader.section((count + 1) // 2), np.uint8).astype(np.int64)
    halves = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    signed = (halves + 8) % 16 - 8
    require(not signed[count:].any(), "the last nibble is not 0")
    small: NDArray[np.int64] = signed[:count]
    escaped = np.flatnonzero(small == -8)
    small[escaped] = np.frombuffer(reader.section(len(escaped)), np.int8)
    return small


def _gaps(reader: Reader, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    (size,) = reader.unpack("I")
    require(size <= count + count // 255, "too many gaps")
    positions, at = [], -1
    gap, open_gap = 0, False
    for byte in reader.section(size):
        gap += byte
        open_gap = byte == 255
        if not open_gap:
            at += gap + 1
            positions.append(at)
            gap = 0
    require(not open_gap, "a gap without end")
    require(at < count, "a position beyond the end")
    values = np.frombuffer(reader.section(len(positions)), np.int8).astype(np.int64)
    return np.array(positions, np.int64), values


def follow_notice(message: bytes, held: Model, name: dict[str, Any]) -> dict[str, Any] | None:
    """What a notice leads to; None: look at the head."""
    notice = strict_json(message)
    require(isinstance(notice, dict), "no notice")
    for key, kind in (("version", int), ("base_version", int), ("token", str), ("lineage", str)):
        require(isinstance(notice.get(key, kind()), kind), f"{key} is none")
    base = [notice.get(key) for key in ("base_version", "base_token", "lineage")]
    try:
        diff, extras = (base64.b64decode(notice.get(k, ""), validate=True) for k in _CARRIED)
    except (binascii.Error, TypeError, ValueError):
        refuse("no base64")
    if not diff or base != [name["version"], name["token"], name["lineage"]]:
        return None
    found = apply_diff(held, diff)
    digest = xxhash.xxh3_128_hexdigest(found.data + extras)
    require(digest == notice.get("digest"), "other weights", "digest")
    return {"version": notice["version"], "token": notice["token"], "digest": digest}


_CARRIED = ("diff", "extras")
