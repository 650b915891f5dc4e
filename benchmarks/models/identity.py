"""Bit-identity: one publisher, and readers in numpy, in torch and in C++ with -ffast-math."""

import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rl4sys_stream.policy.mlp import actor_layout
from rl4sys_stream.wire.compact import apply_compact_diff, encode_compact_diff
from rl4sys_stream.wire.grid import MIN_EXPONENT, GridWeights, power, round_to_grid, spans
from rl4sys_stream.wire.integers import unpack_integers
from rl4sys_stream.wire.sections import inflate, take_section
from rl4sys_stream.wire.snapshot import TensorLayout, Weights

__all__ = ["Identity", "compare"]

SOURCE: Final = Path(__file__).with_name("decoder.cpp")
FLAGS: Final = ("-O3", "-ffast-math", "-march=native", "-std=c++17")
HEADER_BYTES: Final = 48
COARSER: Final = 128


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison found.

    Attributes:
        versions: Diffs that were followed.
        regrids: Versions in which a tensor's grid changed.
        layouts: Diffs by layout of their integers.
        mismatches: reader -> float32 patterns that differed from the publisher's.
        flags: Of the C++ compiler.
    """

    versions: int
    regrids: int
    layouts: dict[str, int]
    mismatches: dict[str, int]
    flags: str


@dataclass
class _Walk:
    """A publisher whose weights and grids wander, from dense steps to hardly any."""

    layout: TensorLayout
    rng: np.random.Generator

    def __post_init__(self) -> None:
        flat = self.rng.normal(0, 0.2, self.layout.size).astype(np.float32)
        self.master = flat
        self.exponents = np.full(len(self.layout.names), -8)

    def publish(self) -> GridWeights:
        rng = self.rng
        scale = 10.0 ** rng.uniform(-5, -1)
        step = rng.normal(0, scale, self.layout.size) * (rng.random(self.layout.size) < 0.9)
        self.master = (self.master * np.float32(0.999) + step).astype(np.float32)
        if rng.random() < 0.05:  # an outlier, which only a word holds
            self.master[rng.integers(self.layout.size)] += np.float32(rng.normal(0, 50))
        moves = rng.integers(-1, 2, len(self.exponents)) * (rng.random(len(self.exponents)) < 0.2)
        self.exponents = np.clip(self.exponents + moves, -14, 0)
        return round_to_grid(Weights(self.layout, self.master), self.exponents.tolist())


def compare(versions: int, *, seed: int = 0) -> Identity:
    """Follow `versions` diffs with all readers at once, and count what differs."""
    walk = _Walk(actor_layout(8, (64, 64), 4), np.random.default_rng(seed))
    base = walk.publish()
    numpy_reader, torch_reader = base.weights, torch.tensor(base.weights.flat)
    layouts, regrids = {"bytes": 0, "nibbles": 0, "gaps": 0}, 0
    mismatches = {"numpy": 0, "torch": 0, "c++": 0}
    with _cpp_reader(base.weights) as process:
        for _ in range(versions):
            new = walk.publish()
            data = encode_compact_diff(base, new)
            if data is None:
                raise RuntimeError("the walk took a step that no diff holds")
            start = HEADER_BYTES + len(new.exponents)
            layouts[("bytes", "nibbles", "gaps")[data[start] - 1]] += 1
            regrids += new.exponents != base.exponents
            numpy_reader = apply_compact_diff(numpy_reader, data)
            _follow_in_torch(torch_reader, walk.layout, data)
            found = _follow_in_cpp(process, walk.layout, data)
            for name, flat in (
                ("numpy", numpy_reader.flat),
                ("torch", torch_reader.numpy()),
                ("c++", found),
            ):
                mismatches[name] += _differing(flat, new.weights.flat)
            base = new
    return Identity(
        versions=versions,
        regrids=regrids,
        layouts=layouts,
        mismatches=mismatches,
        flags=" ".join(FLAGS),
    )


def _differing(flat: NDArray[np.float32], published: NDArray[np.float32]) -> int:
    return int(np.count_nonzero(flat.view(np.uint32) != published.view(np.uint32)))


def _follow_in_torch(weights: torch.Tensor, layout: TensorLayout, data: bytes) -> None:
    """With fused operations, in place."""
    tensors = len(layout.names)
    codes = data[HEADER_BYTES : HEADER_BYTES + tensors]
    changes = unpack_integers(memoryview(data)[HEADER_BYTES + tensors :], layout.size)
    steps = torch.zeros(layout.size)
    where = slice(None) if changes.positions is None else torch.from_numpy(changes.positions)
    steps[where] = torch.from_numpy(changes.values)
    for span, code in zip(spans(layout), codes, strict=True):
        exponent = code % COARSER + MIN_EXPONENT
        part = weights[span]
        if code >= COARSER:
            part.mul_(float(power(-exponent))).add_(0.5).floor_().mul_(float(power(exponent)))
        part.add_(steps[span], alpha=float(power(exponent)))


@contextmanager
def _cpp_reader(base: Weights) -> "Iterator[subprocess.Popen[bytes]]":
    with tempfile.TemporaryDirectory(prefix="rl4sys-decoder-") as name:
        program = Path(name) / "decoder"
        subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(program)], check=True)
        with subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            sizes = [span.stop - span.start for span in spans(base.layout)]
            head = struct.pack(f"<II{len(sizes)}I", base.layout.size, len(sizes), *sizes)
            _write(process, head + base.flat.tobytes())
            try:
                yield process
            finally:
                process.kill()


def _follow_in_cpp(
    process: "subprocess.Popen[bytes]", layout: TensorLayout, data: bytes
) -> NDArray[np.float32]:
    frame = _unpacked(data, layout)
    _write(process, struct.pack("<I", len(frame)) + frame)
    if process.stdout is None:
        raise RuntimeError("the decoder has no output")
    return np.frombuffer(process.stdout.read(4 * layout.size), np.float32)


def _write(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    if process.stdin is None:
        raise RuntimeError("the decoder has no input")
    process.stdin.write(data)
    process.stdin.flush()


def _unpacked(data: bytes, layout: TensorLayout) -> bytes:
    """Codes, layout and sections of a diff, without zstd, which the program does not link."""
    start = HEADER_BYTES + len(layout.names)
    at, kind, n = start + 1, data[start], layout.size
    parts: list[bytes] = []

    def section(raw_bytes: int) -> bytes:
        nonlocal at
        stored, at = take_section(memoryview(data), at, raw_bytes, "a section")
        raw = bytes(inflate(stored, raw_bytes, "a section"))
        parts.append(struct.pack("<I", len(raw)) + raw)
        return raw

    if kind == 1:
        small = section(n)
    elif kind == 2:
        pairs = section((n + 1) // 2)
        nibbles = [nibble for byte in pairs for nibble in (byte & 15, byte >> 4)][:n]
        small = section(nibbles.count(8))
    else:
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        gaps = section(size)
        small = section(size - gaps.count(255))
    section(4 * small.count(0x80))
    return data[HEADER_BYTES : start + 1] + b"".join(parts)
