"""Grids: what lies on one, and which one a tensor can have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.errors import NonFiniteError, WireLimitError
from rl4sys_stream.wire.grid import (
    MAX_EXPONENT,
    MIN_EXPONENT,
    least_exponents,
    power,
    regrid,
    round_to_grid,
)
from rl4sys_stream.wire.snapshot import Weights
from tests.unit.wire.strategies import finite


def of(*values: float) -> Weights:
    """Weights of one tensor."""
    return Weights.from_tensors({"w": np.array(values, np.float32)})


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(-60, 130))
def test_every_weight_is_a_whole_multiple_below_two_to_the_22(seed, exponent):
    """Of any magnitude, with the exponent raised where the largest one needs it."""
    values = finite(np.random.default_rng(seed), (50,)) * np.float32(1 / 256)
    weights = Weights(of(*range(50)).layout, values)
    found = round_to_grid(weights, [exponent])
    quanta = found.weights.flat.astype(np.float64) / 2.0 ** found.exponents[0]
    assert (quanta == np.rint(quanta)).all()
    assert np.abs(quanta).max() < 1 << 22
    assert MIN_EXPONENT <= found.exponents[0] <= MAX_EXPONENT
    error = np.abs(found.weights.flat.astype(np.float64) - weights.flat)
    assert error.max() <= 2.0 ** found.exponents[0] / 2


def test_rounding_is_to_the_nearest_and_never_gives_negative_zero():
    """Halves go to the even multiple, as in every language's default."""
    found = round_to_grid(of(0.5, 1.5, -0.5, -0.4, 0.6, -0.0), [0])
    assert found.weights.flat.tolist() == [0.0, 2.0, 0.0, 0.0, 1.0, 0.0]
    assert not np.signbit(found.weights.flat).any()


def test_a_weight_that_rounds_up_to_a_power_of_two_still_fits():
    """4194303.9 steps would be 2^22 of them."""
    found = round_to_grid(of(float(np.nextafter(np.float32(1.0), np.float32(0.0)))), [-30])
    quantum = float(found.weights.flat[0]) / 2.0 ** found.exponents[0]
    assert quantum < 1 << 22


def test_what_no_grid_holds_is_named():
    """Such weights must not be published, and the message says whose they are."""
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteError, match="w is not finite"):
            least_exponents(of(1.0, value))
    with pytest.raises(WireLimitError, match="beyond what a grid holds"):
        round_to_grid(of(3e38), [0])


def test_a_coarser_grid_takes_the_nearest_multiple_and_halves_up():
    """Everybody has to round alike; up is what one floor gives in every language."""
    part = np.array([-1.5, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.5], np.float32)
    found = regrid(part, 0, np.empty_like(part))
    assert found.tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0]
    assert not np.signbit(found[found == 0]).any()


@given(st.integers(MIN_EXPONENT, 60), st.integers(1, 40), st.integers(0, 1 << 32))
def test_regridding_in_float32_is_exact(exponent, coarser, seed):
    """Against integers of 64 bits, for every distance between two grids."""
    quanta = np.random.default_rng(seed).integers(-(1 << 22) + 1, 1 << 22, 64)
    part = quanta.astype(np.float32) * power(exponent)
    found = regrid(part, exponent + coarser, np.empty_like(part))
    expected = (quanta + (1 << (coarser - 1))) >> coarser
    assert (found == expected.astype(np.float32) * power(exponent + coarser)).all()
