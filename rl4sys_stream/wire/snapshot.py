"""All parameters of a published model: one flat float32 vector, its layout, and its frame.

```
frame:  "RL4W" | format u8 | kind u8 (0 = float32) | 0 u16 | layout_bytes u32 | parameters u64
        | digest u64 (xxh3_64 of the flat bytes) | layout JSON | four byte planes (see planes.py)
layout: [{"name": "pi.0.weight", "dtype": "<f4", "shape": [8, 64]}, …]   tensors in flat order
```
All numbers are little-endian; tensors are row-major. Kind 1 is the compact one (see compact.py).
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated, Final, Self

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from rl4sys_stream.errors import DigestError, WireFormatError, WireLimitError
from rl4sys_stream.wire.format import FLOAT32, WEIGHTS_FORMAT
from rl4sys_stream.wire.planes import pack_planes, unpack_planes

__all__ = ["TensorLayout", "Weights", "decode_snapshot", "encode_snapshot"]

MAX_TENSORS: Final = 4096
MAX_AXES: Final = 8
MAX_NAME_CHARS: Final = 256
MAX_LAYOUT_BYTES: Final = 1 << 20

_MAGIC: Final = b"RL4W"
_KIND_FLOAT32: Final = 0
_HEADER: Final = struct.Struct("<4sBBHIQQ")


class _TensorJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor in the layout JSON."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARS)]
    dtype: str
    shape: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 40)], ...],
        msgspec.Meta(max_length=MAX_AXES),
    ]


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Where each named tensor lies in the flat vector. Equal layouts compare equal.

    Attributes:
        names: Tensor names in flat order, no two alike.
        shapes: Their shapes; () is a scalar.
        size: Parameters of all tensors together.
        offsets: Index of each tensor's first element in the flat vector.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    size: int = field(init=False, repr=False, compare=False)
    offsets: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _digest: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse layouts that no weights can have."""
        if not 1 <= len(self.names) <= MAX_TENSORS or len(self.names) != len(self.shapes):
            raise WireFormatError(
                f"a layout needs 1 to {MAX_TENSORS} tensors and a shape for each; "
                f"got {len(self.names)} names and {len(self.shapes)} shapes"
            )
        if len(set(self.names)) != len(self.names):
            raise WireFormatError("two tensors of the layout have the same name")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if not 1 <= len(name) <= MAX_NAME_CHARS or len(shape) > MAX_AXES:
                raise WireFormatError(f"tensor {name[:40]!r} has no valid name or too many axes")
            if any(axis < 1 for axis in shape):
                raise WireFormatError(f"tensor {name!r} has the impossible shape {shape}")
        *offsets, size = accumulate(map(math.prod, self.shapes), initial=0)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "offsets", tuple(offsets))

    @property
    def digest(self) -> str:
        """xxh3_64 of `to_json()`, 16 hexadecimal digits."""
        if not self._digest:
            digest = xxhash.xxh3_64_hexdigest(self.to_json())
            object.__setattr__(self, "_digest", digest)
        return self._digest

    def split(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The tensors as views into `flat`, a `float32 [size]`, in layout order.

        Raises:
            WireFormatError: If `flat` has another shape.
        """
        if flat.shape != (self.size,):
            raise WireFormatError(f"the layout has {self.size} parameters, not {flat.shape}")
        return {
            name: flat[start : start + math.prod(shape)].reshape(shape)
            for name, shape, start in zip(self.names, self.shapes, self.offsets, strict=True)
        }

    def to_json(self) -> bytes:
        """The layout as canonical JSON: the same bytes for equal layouts."""
        return msgspec.json.encode(
            [
                _TensorJson(name=name, dtype=FLOAT32, shape=shape)
                for name, shape in zip(self.names, self.shapes, strict=True)
            ]
        )

    @classmethod
    def from_json(cls, data: bytes | memoryview) -> Self:
        """The layout that `data` describes.

        Raises:
            WireFormatError: If it is no layout, or holds another dtype than float32.
            WireLimitError: If it is longer than a layout may be.
        """
        if len(data) > MAX_LAYOUT_BYTES:
            raise WireLimitError(f"a layout of {len(data)} bytes; {MAX_LAYOUT_BYTES} are allowed")
        try:
            tensors = msgspec.json.decode(data, type=list[_TensorJson])
        # ValueError: invalid UTF-8. RecursionError: a bomb of brackets.
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireFormatError(f"the layout of the weights does not parse: {error}") from None
        if others := {tensor.dtype for tensor in tensors} - {FLOAT32}:
            raise WireFormatError(f"weights are {FLOAT32}, not {min(others)[:40]!r}")
        return cls(tuple(t.name for t in tensors), tuple(t.shape for t in tensors))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Weights:
    """All parameters of one published model. Immutable; safe to share between threads.

    A writable array given to the constructor is copied, so that nobody can change it later.

    Attributes:
        layout: Names and shapes.
        flat: `float32 [layout.size]`, contiguous, little-endian, read-only. Values that are not
            finite are representable; refusing them is up to those who publish and act.
    """

    layout: TensorLayout
    flat: NDArray[np.float32]
    _fingerprint: bytes = field(default=b"", init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the size and make the vector read-only.

        Raises:
            WireFormatError: If `flat` is no float32 vector of the layout's size.
        """
        flat = self.flat
        if flat.dtype != np.float32 or flat.shape != (self.layout.size,):
            raise WireFormatError(
                f"the layout needs float32 [{self.layout.size}], not {flat.dtype} {flat.shape}"
            )
        if flat.flags.writeable or not flat.flags.c_contiguous:
            flat = flat.copy()
            flat.flags.writeable = False
            object.__setattr__(self, "flat", flat)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.float32]]) -> Self:
        """The weights made of `tensors`, in their order, copied.

        Raises:
            WireFormatError: If there are none, or one is not float32 or empty.
        """
        for name, tensor in tensors.items():
            if tensor.dtype != np.float32:
                raise WireFormatError(f"tensor {name!r} is {tensor.dtype}; convert it to float32")
        layout = TensorLayout(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()))
        # [*shape] of each -> [size]
        flat = np.concatenate([tensor.reshape(-1) for tensor in tensors.values()])
        return cls(layout, frozen(flat))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Read-only views of the tensors by name, in layout order."""
        return self.layout.split(self.flat)

    @property
    def fingerprint(self) -> bytes:
        """xxh3_128 of the flat little-endian bytes, 16 bytes in canonical (big-endian) order.

        Computed once: it is both the result of one diff and the base of the next.
        """
        if not self._fingerprint:
            digest = xxhash.xxh3_128_digest(flat_bytes(self.flat))
            object.__setattr__(self, "_fingerprint", digest)
        return self._fingerprint

    def digest(self, extras: bytes = b"") -> str:
        """xxh3_128 of the flat little-endian bytes, then `extras`; 32 hexadecimal digits.

        Args:
            extras: What else belongs to the model (see `policy.BehaviorExtras.to_bytes`).
        """
        state = xxhash.xxh3_128(flat_bytes(self.flat))
        state.update(extras)
        return state.hexdigest()


def frozen(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """`flat` itself, made read-only; only for arrays that nobody else holds."""
    flat.flags.writeable = False
    return flat


def flat_bytes(flat: NDArray[np.float32]) -> memoryview:
    """The little-endian bytes of `flat`, not copied on a little-endian machine."""
    return flat.astype(FLOAT32, copy=False).view(np.uint8).data


def flat_digest(flat: NDArray[np.float32]) -> int:
    """xxh3_64 of the little-endian bytes of `flat`: what frames carry."""
    return xxhash.xxh3_64_intdigest(flat_bytes(flat))


def encode_snapshot(weights: Weights) -> bytes:
    """`weights` as one frame that decodes without anything else (about 0.87–0.93 of raw)."""
    layout = weights.layout.to_json()
    header = _HEADER.pack(
        _MAGIC,
        WEIGHTS_FORMAT,
        _KIND_FLOAT32,
        0,
        len(layout),
        weights.layout.size,
        flat_digest(weights.flat),
    )
    return header + layout + pack_planes(weights.flat.view(np.uint32))


def decode_snapshot(data: bytes, *, max_parameters: int) -> Weights:
    """The weights in a frame of `encode_snapshot`, bit for bit.

    Args:
        data: The frame.
        max_parameters: What the caller is ready to hold; 4 bytes each are allocated.

    Raises:
        WireFormatError: If it is no snapshot, of an unknown format, or cut.
        WireLimitError: If it declares more than `max_parameters`.
        DigestError: If the weights are not those that were encoded.
    """
    layout, digest, planes = _read_header(memoryview(data), max_parameters)
    flat = frozen(unpack_planes(planes, layout.size).view(np.float32))
    if flat_digest(flat) != digest:
        raise DigestError("the snapshot's weights do not match its digest; fetch it again")
    return Weights(layout, flat)


def _read_header(data: memoryview, max_parameters: int) -> tuple[TensorLayout, int, memoryview]:
    """Layout, digest of the flat bytes, and the byte planes; nothing of size n allocated."""
    if len(data) < _HEADER.size:
        raise WireFormatError(f"{len(data)} bytes are no snapshot; a header has {_HEADER.size}")
    magic, version, kind, reserved, layout_size, count, digest = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise WireFormatError(f"no snapshot: it begins with {magic!r} instead of {_MAGIC!r}")
    if version != WEIGHTS_FORMAT or kind != _KIND_FLOAT32 or reserved:
        raise WireFormatError(
            f"snapshot format {version}, kind {kind} is unknown; this side reads format "
            f"{WEIGHTS_FORMAT}, kind {_KIND_FLOAT32}: upgrade it"
        )
    if count > max_parameters:
        raise WireLimitError(f"the snapshot declares {count} parameters of {max_parameters}")
    if layout_size > len(data) - _HEADER.size:
        raise WireFormatError(f"the frame ends within its layout of {layout_size} bytes")
    start = _HEADER.size + layout_size
    layout = TensorLayout.from_json(data[_HEADER.size : start])
    if layout.size != count:
        raise WireFormatError(f"the layout has {layout.size} parameters, the header says {count}")
    return layout, digest, data[start:]
