"""Weights on a grid: each tensor holds whole multiples of a power of two of its own.

`w = q · 2^e` with `q` an integer below 2^22 in size and `e`, the tensor's exponent, from -24 to
103. Then every step between two such sets of weights is exact in float32, in any order, with fused
multiplication or without, with subnormal numbers or without: the product with a power of two
changes an exponent only, no product and no sum has more than 24 significant bits, and none is
subnormal.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import NonFiniteError, WireLimitError
from rl4sys_stream.wire.snapshot import TensorLayout, Weights, frozen

__all__ = [
    "MAX_EXPONENT",
    "MIN_EXPONENT",
    "QUANTUM_BITS",
    "GridWeights",
    "least_exponents",
    "power",
    "regrid",
    "round_to_grid",
    "spans",
]

MIN_EXPONENT: Final = -24
"""2^-24 is 6e-8, far below what any policy feels, and far above the subnormal numbers."""

MAX_EXPONENT: Final = 103

QUANTUM_BITS: Final = 22
"""A weight is fewer than 2^22 steps of its grid away from 0."""

_HALF: Final = np.float32(0.5)
_ZERO: Final = np.float32(0.0)


@dataclass(frozen=True, slots=True, eq=False)
class GridWeights:
    """Weights that lie on the grid of `exponents`.

    Attributes:
        weights: Without -0.0.
        exponents: One a tensor, in the layout's order.
    """

    weights: Weights
    exponents: tuple[int, ...]


def power(exponent: int) -> np.float32:
    """2^exponent, exactly; `exponent` is from -126 to 127."""
    return np.float32(math.ldexp(1.0, exponent))


def spans(layout: TensorLayout) -> Iterator[slice]:
    """Where each tensor lies in the flat vector."""
    offsets = (*layout.offsets, layout.size)
    for index in range(len(layout.names)):
        yield slice(offsets[index], offsets[index + 1])


def least_exponents(weights: Weights) -> tuple[int, ...]:
    """For each tensor the finest exponent that its largest weight allows.

    Raises:
        NonFiniteError: If a weight is NaN or infinite.
        WireLimitError: If one is too large for any grid.
    """
    offsets = weights.layout.offsets
    highest = np.maximum.reduceat(weights.flat, offsets).tolist()
    lowest = np.minimum.reduceat(weights.flat, offsets).tolist()
    found: list[int] = []
    for name, high, low in zip(weights.layout.names, highest, lowest, strict=True):
        largest = max(high, -low)
        if not math.isfinite(largest):
            raise NonFiniteError(f"a weight of {name} is not finite; it must not be published")
        # largest < 2^top; one more, because rounding may reach it.
        _, top = math.frexp(largest)
        least = top + 1 - QUANTUM_BITS
        if least > MAX_EXPONENT:
            raise WireLimitError(f"a weight of {name} is {largest:g}, beyond what a grid holds")
        found.append(max(least, MIN_EXPONENT))
    return tuple(found)


def round_to_grid(weights: Weights, exponents: Sequence[int]) -> GridWeights:
    """The nearest weights on the grid; halves go to the even multiple.

    Args:
        weights: Finite.
        exponents: One a tensor. Where a tensor's largest weight does not allow such a fine grid,
            the finest that it allows is taken.

    Raises:
        NonFiniteError: As `least_exponents`.
        WireLimitError: Likewise.
    """
    least = least_exponents(weights)
    taken = tuple(
        min(max(wanted, finest), MAX_EXPONENT)
        for wanted, finest in zip(exponents, least, strict=True)
    )
    # Whole passes where they can be: a call costs more than a small tensor's arithmetic.
    flat = np.empty_like(weights.flat)
    parts = list(zip(spans(weights.layout), taken, strict=True))
    for span, exponent in parts:
        np.multiply(weights.flat[span], power(-exponent), out=flat[span])
    np.rint(flat, out=flat)
    flat += _ZERO  # -0.0 becomes 0.0
    for span, exponent in parts:
        flat[span] *= power(exponent)
    return GridWeights(Weights(weights.layout, frozen(flat)), taken)


def regrid(
    part: NDArray[np.float32], exponent: int, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weights of a finer grid on a coarser one, as everybody has to round them: halves go up.

    Args:
        part: `float32 [n]`, on a grid finer than `exponent`.
        exponent: Of the coarser grid.
        out: `float32 [n]`, written over.
    """
    np.multiply(part, power(-exponent), out=out)
    np.add(out, _HALF, out=out)
    np.floor(out, out=out)
    np.multiply(out, power(exponent), out=out)
    return out
