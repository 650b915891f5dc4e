"""How long encoding and decoding take, beside a memcpy of the model.

Processor time of the thread, the least of many runs: what the codec costs, not what the machine was
busy with.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from rl4sys_stream.policy.mlp import actor_layout
from rl4sys_stream.wire.compact import (
    apply_compact_diff,
    decode_compact_snapshot,
    encode_compact_diff,
    encode_compact_snapshot,
)
from rl4sys_stream.wire.diff import apply_diff, encode_diff
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["Speed", "measure_speed"]

SMALL: Final = ((64, 64), 0.023, -7)
LARGE: Final = ((2240, 2240), 2e-5, -9)
"""Hidden sizes, relative step of an update, exponent of the grid; the large one with the share of
moved weights that a 5M-parameter PPO shows at a budget of 1e-6."""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds for one model.

    Attributes:
        parameters: Of the model.
        memcpy_us: Of its float32, into warm memory.
        ratio: Bytes of the compact diff / raw float32.
        encode_us: Rounding to the grid and the compact diff, digests included.
        decode_us: Following it, digest included.
        snapshot_encode_us: A compact snapshot.
        snapshot_decode_us: The same back.
        exact_encode_us: The exact diff.
        exact_decode_us: Following that.
    """

    parameters: int
    memcpy_us: float
    ratio: float
    encode_us: float
    decode_us: float
    snapshot_encode_us: float
    snapshot_decode_us: float
    exact_encode_us: float
    exact_decode_us: float


def measure_speed(repeats: int = 40) -> list[Speed]:
    """For a 64x64 net and for one of 5 million parameters."""
    return [_measure(*SMALL, repeats, 50), _measure(*LARGE, repeats // 4, 1)]


def _least_us(action: Callable[[], object], repeats: int, loops: int) -> float:
    action()
    best = float("inf")
    for _ in range(repeats):
        begun = time.thread_time()
        for _ in range(loops):
            action()
        best = min(best, (time.thread_time() - begun) / loops)
    return round(1e6 * best, 2)


def _measure(
    hidden: Sequence[int], relative: float, exponent: int, repeats: int, loops: int
) -> Speed:
    rng = np.random.default_rng(0)
    layout = actor_layout(8, hidden, 4)
    before = Weights(layout, rng.normal(0, 0.15, layout.size).astype(np.float32))
    moved = rng.normal(0, 0.15 * relative, layout.size).astype(np.float32)
    after = Weights(layout, before.flat + moved)
    exponents = [exponent] * len(layout.names)
    base, new = round_to_grid(before, exponents), round_to_grid(after, exponents)
    base.weights.fingerprint  # noqa: B018 - known to both sides from the version before
    diff, snapshot = encode_compact_diff(base, new), encode_compact_snapshot(new)
    if diff is None:
        raise RuntimeError("these two have a diff")
    exact = encode_diff(before, after)
    target = np.empty_like(before.flat)

    def least(action: Callable[[], object]) -> float:
        return _least_us(action, repeats, loops)

    return Speed(
        parameters=layout.size,
        memcpy_us=least(lambda: np.copyto(target, before.flat)),
        ratio=len(diff) / before.flat.nbytes,
        encode_us=least(lambda: encode_compact_diff(base, round_to_grid(after, exponents))),
        decode_us=least(lambda: apply_compact_diff(base.weights, diff)),
        snapshot_encode_us=least(lambda: encode_compact_snapshot(new)),
        snapshot_decode_us=least(
            lambda: decode_compact_snapshot(snapshot, max_parameters=layout.size)
        ),
        exact_encode_us=least(lambda: encode_diff(before, after)),
        exact_decode_us=least(lambda: apply_diff(before, exact)),
    )
