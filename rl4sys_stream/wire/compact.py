"""Frames of weights that lie on a grid (see grid.py): snapshots and diffs of small integers.

```
snapshot: "RL4W" | format u8 | 1 u8 | tensors u16 | layout_bytes u32 | parameters u64
          | layout digest u64 | digest 16 | layout JSON | a byte for each tensor: e + 24
          | the zigzag codes of w · 2^-e as four byte planes (see planes.py)
diff:     "RL4D" | format u8 | 2 u8 | tensors u16 | layout digest u64 | base digest 16
          | result digest 16 | a byte for each tensor: e + 24, and 128 where its grid became coarser
          | integers (see integers.py)
```
Digests of weights are xxh3_128 of the flat little-endian bytes, in canonical order. All other
numbers are little-endian.

A diff is followed so, for each tensor: where its grid became coarser,
`w ← floor(w · 2^-e + 1/2) · 2^e`; then `w ← w + d · 2^e`. Where a grid became finer nothing has to
be rounded. No operation of these loses a bit but that floor, so agents in any language, in any
order, arrive at the same weights. The digest says so.
"""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import DigestError, WireFormatError, WireLimitError
from rl4sys_stream.wire.format import WEIGHTS_FORMAT
from rl4sys_stream.wire.grid import (
    MIN_EXPONENT,
    QUANTUM_BITS,
    GridWeights,
    power,
    regrid,
    spans,
)
from rl4sys_stream.wire.integers import (
    LARGEST,
    Changes,
    pack_integers,
    unpack_integers,
    unzigzag,
    zigzag,
)
from rl4sys_stream.wire.planes import pack_planes, unpack_planes
from rl4sys_stream.wire.snapshot import TensorLayout, Weights, frozen

__all__ = [
    "DIFF_KIND",
    "SNAPSHOT_KIND",
    "apply_compact_diff",
    "decode_compact_snapshot",
    "encode_compact_diff",
    "encode_compact_snapshot",
]

SNAPSHOT_KIND: Final = 1
DIFF_KIND: Final = 2

_SNAPSHOT_MAGIC: Final = b"RL4W"
_DIFF_MAGIC: Final = b"RL4D"
_SNAPSHOT: Final = struct.Struct("<4sBBHIQQ16s")
_DIFF: Final = struct.Struct("<4sBBHQ16s16s")
_COARSER: Final = 128
_LARGEST_WORD: Final = 1 << (QUANTUM_BITS + 1)


def encode_compact_snapshot(model: GridWeights) -> bytes:
    """`model` as one frame that decodes without anything else."""
    weights = model.weights
    layout = weights.layout.to_json()
    header = _SNAPSHOT.pack(
        _SNAPSHOT_MAGIC,
        WEIGHTS_FORMAT,
        SNAPSHOT_KIND,
        len(model.exponents),
        len(layout),
        weights.layout.size,
        int(weights.layout.digest, 16),
        weights.fingerprint,
    )
    quanta = np.empty(weights.layout.size, np.int32)
    for span, exponent in zip(spans(weights.layout), model.exponents, strict=True):
        quanta[span] = weights.flat[span] * power(-exponent)
    codes = bytes(exponent - MIN_EXPONENT for exponent in model.exponents)
    return header + layout + codes + pack_planes(zigzag(quanta))


def decode_compact_snapshot(data: bytes, *, max_parameters: int) -> Weights:
    """The weights in a frame of `encode_compact_snapshot`, bit for bit.

    Args:
        data: The frame.
        max_parameters: What the caller is ready to hold; 4 bytes each are allocated.

    Raises:
        WireFormatError: If it is no such snapshot, of an unknown format, or cut.
        WireLimitError: If it declares more than `max_parameters`.
        DigestError: If the weights are not those that were encoded.
    """
    layout, digest, exponents, planes = _read_snapshot(memoryview(data), max_parameters)
    words = unpack_planes(planes, layout.size)
    if int(words.max()) >= _LARGEST_WORD:
        raise WireFormatError(f"a weight is 2^{QUANTUM_BITS} steps of its grid or more")
    quanta = unzigzag(words)
    flat = np.empty(layout.size, np.float32)
    for span, exponent in zip(spans(layout), exponents, strict=True):
        np.multiply(quanta[span], power(exponent), out=flat[span], casting="unsafe")
    weights = Weights(layout, frozen(flat))
    if weights.fingerprint != digest:
        raise DigestError("the snapshot's weights do not match its digest; fetch it again")
    return weights


def _read_snapshot(
    data: memoryview, max_parameters: int
) -> tuple[TensorLayout, bytes, list[int], memoryview]:
    """Layout, digest, exponents and planes; nothing of size n allocated."""
    if len(data) < _SNAPSHOT.size:
        raise WireFormatError(
            f"{len(data)} bytes are no compact snapshot; a header has {_SNAPSHOT.size}"
        )
    magic, version, kind, tensors, layout_size, count, named, digest = _SNAPSHOT.unpack_from(data)
    _check_kind("snapshot", (magic, version, kind), (_SNAPSHOT_MAGIC, SNAPSHOT_KIND))
    if count > max_parameters:
        raise WireLimitError(f"the snapshot declares {count} parameters of {max_parameters}")
    start = _SNAPSHOT.size + layout_size
    if start + tensors > len(data):
        raise WireFormatError("the frame ends within its layout or its exponents")
    layout = TensorLayout.from_json(data[_SNAPSHOT.size : start])
    if (layout.size, len(layout.names)) != (count, tensors):
        raise WireFormatError(
            f"the layout has {layout.size} parameters in {len(layout.names)} tensors, the header "
            f"says {count} in {tensors}"
        )
    if int(layout.digest, 16) != named:
        raise DigestError("the snapshot's layout does not match its digest; fetch it again")
    codes = data[start : start + tensors]
    if any(code >= _COARSER for code in codes):
        raise WireFormatError("a tensor of a snapshot cannot have become coarser")
    exponents = [code + MIN_EXPONENT for code in codes]
    return layout, digest, exponents, data[start + tensors :]


def _check_kind(what: str, found: tuple[bytes, int, int], expected: tuple[bytes, int]) -> None:
    magic, version, kind = found
    if magic != expected[0]:
        raise WireFormatError(f"no {what}: it begins with {magic!r} instead of {expected[0]!r}")
    if version != WEIGHTS_FORMAT or kind != expected[1]:
        raise WireFormatError(
            f"{what} format {version}, kind {kind} is unknown; this side reads format "
            f"{WEIGHTS_FORMAT}, kind {expected[1]}: upgrade it"
        )


def encode_compact_diff(base: GridWeights, new: GridWeights) -> bytes | None:
    """The frame that turns `base` into `new`.

    Returns:
        None where there is none: the layouts differ, or a weight moved by more steps than a diff
        holds. Publish a snapshot then.
    """
    layout = new.weights.layout
    if base.weights.layout != layout:
        return None
    old, steps = base.weights.flat, np.empty_like(base.weights.flat)
    parts = list(zip(spans(layout), base.exponents, new.exponents, strict=True))
    if any(now > before for _, before, now in parts):
        old = old.copy()
        for span, before, now in parts:
            if now > before:
                regrid(old[span], now, old[span])
    np.subtract(new.weights.flat, old, out=steps)
    for span, _, now in parts:
        steps[span] *= power(-now)
    codes = bytes(now - MIN_EXPONENT + _COARSER * (now > before) for _, before, now in parts)
    if not _holds(base, new, steps):
        return None
    header = _DIFF.pack(
        _DIFF_MAGIC,
        WEIGHTS_FORMAT,
        DIFF_KIND,
        len(codes),
        int(layout.digest, 16),
        base.weights.fingerprint,
        new.weights.fingerprint,
    )
    return header + codes + pack_integers(steps)


def _holds(base: GridWeights, new: GridWeights, steps: NDArray[np.float32]) -> bool:
    """Whether all steps are as exact as they look.

    On a grid that became finer the base may lie more than 2^22 steps away from 0.
    """
    if max(float(steps.max()), -float(steps.min())) > LARGEST:
        return False
    finer = any(now < before for before, now in zip(base.exponents, new.exponents, strict=True))
    if not finer:
        return True
    return all(
        float(np.abs(base.weights.flat[span]).max()) < float(power(exponent + QUANTUM_BITS + 1))
        for span, exponent in zip(spans(new.weights.layout), new.exponents, strict=True)
    )


def apply_compact_diff(base: Weights, data: bytes) -> Weights:
    """The weights that `encode_compact_diff` was given as `new`. `base` is left as it is.

    Args:
        base: The weights that the diff starts from.
        data: The frame.

    Raises:
        WireFormatError: If it is no such diff, of an unknown format, or cut.
        DigestError: If it starts from other weights or another layout than `base`, or leads to
            others than the publisher had. Fetch the keyframe.
    """
    digest, codes, packed = _read_diff(base, memoryview(data))
    changes = unpack_integers(packed, base.layout.size)
    with np.errstate(all="ignore"):  # of a forged frame; the digest refuses what comes out
        flat = _follow(base, codes, changes)
    weights = Weights(base.layout, frozen(flat))
    if weights.fingerprint != digest:
        raise DigestError("the diff does not lead to the published weights; fetch the keyframe")
    return weights


def _read_diff(base: Weights, data: memoryview) -> tuple[bytes, memoryview, memoryview]:
    """Digest of the result, the tensors' codes and the integers, once it starts from `base`."""
    if len(data) < _DIFF.size:
        raise WireFormatError(f"{len(data)} bytes are no compact diff; a header has {_DIFF.size}")
    magic, version, kind, tensors, layout, start, result = _DIFF.unpack_from(data)
    _check_kind("diff", (magic, version, kind), (_DIFF_MAGIC, DIFF_KIND))
    if tensors != len(base.layout.names) or layout != int(base.layout.digest, 16):
        raise DigestError("the diff is for weights of another layout; fetch the keyframe")
    if start != base.fingerprint:
        raise DigestError("the diff starts from other weights; fetch the keyframe")
    end = _DIFF.size + tensors
    if len(data) < end:
        raise WireFormatError("the frame ends within its exponents")
    return result, data[_DIFF.size : end], data[end:]


def _follow(base: Weights, codes: memoryview, changes: Changes) -> NDArray[np.float32]:
    """The fresh weights `float32 [n]`."""
    parts = list(zip(spans(base.layout), codes, strict=True))
    old = base.flat
    if changes.positions is not None or max(codes) >= _COARSER:
        old = old.copy()
    for span, code in parts:
        if code >= _COARSER:
            regrid(old[span], code - _COARSER + MIN_EXPONENT, old[span])
    values = changes.values
    if changes.positions is None:
        for span, code in parts:
            values[span] *= _SCALES[code]
        values += old
        return values
    ends = np.searchsorted(changes.positions, (*base.layout.offsets[1:], base.layout.size)).tolist()
    start = 0
    for end, code in zip(ends, codes, strict=True):
        values[start:end] *= _SCALES[code]
        start = end
    old[changes.positions] += values
    return old


_SCALES: Final = tuple(power(code % _COARSER + MIN_EXPONENT) for code in range(256))
"""The step of a tensor's grid, by its code."""
