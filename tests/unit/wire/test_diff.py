"""The exact diff: bit for bit, only on its own base, and small."""

import numpy as np
import pytest
from hypothesis import given, settings

from rl4sys_stream.errors import DigestError, WireFormatError
from rl4sys_stream.wire.diff import _ordered, _unordered, apply_diff, encode_diff
from rl4sys_stream.wire.snapshot import Weights
from tests.unit.wire.strategies import SPECIAL_BITS, weights_pairs


def make(seed: int = 0, scale: float = 0.125, size: int = 4996) -> Weights:
    """Weights as large as a 64×64 actor for LunarLander."""
    rng = np.random.default_rng(seed)
    return Weights.from_tensors({"w": rng.normal(0, scale, size).astype(np.float32)})


def stepped(base: Weights, relative: float) -> Weights:
    """`base` after an update that moved every weight by about `relative` of the common scale."""
    rng = np.random.default_rng(99)
    scale = relative * float(base.flat.std())
    step = rng.normal(0, scale, base.flat.shape).astype(np.float32)
    return Weights.from_tensors({"w": base.flat + step})


@settings(max_examples=300, deadline=None)
@given(weights_pairs())
def test_every_diff_leads_to_the_published_bits(pair):
    """Between any two bit patterns, in both directions, and the base is left as it was."""
    base, new = pair
    before = base.flat.tobytes()
    result = apply_diff(base, encode_diff(base, new))
    assert result.flat.tobytes() == new.flat.tobytes()
    assert result.layout == new.layout
    assert not result.flat.flags.writeable
    assert base.flat.tobytes() == before
    assert apply_diff(new, encode_diff(new, base)).flat.tobytes() == before


def test_every_pair_of_special_values_is_exact():
    """Zeros of both signs, subnormals, infinities, quiet and signalling NaNs with payloads."""
    left, right = np.meshgrid(np.array(SPECIAL_BITS, np.uint32), np.array(SPECIAL_BITS, np.uint32))
    base = Weights.from_tensors({"w": left.reshape(-1).view(np.float32)})
    new = Weights.from_tensors({"w": right.reshape(-1).view(np.float32)})
    assert apply_diff(base, encode_diff(base, new)).flat.tobytes() == new.flat.tobytes()


def test_a_hundred_chained_diffs_do_not_drift():
    """Nothing is rounded, so nothing accumulates."""
    learner = agent = make()
    for _ in range(100):
        new = stepped(learner, 0.02)
        agent = apply_diff(agent, encode_diff(learner, new))
        learner = new
    assert agent.digest() == learner.digest()


def test_a_diff_of_a_typical_ppo_update_is_at_most_70_percent_of_raw():
    """Updates of 2.3 % are what LunarLander shows at the default hyperparameters."""
    base = make()
    assert len(encode_diff(base, stepped(base, 0.023))) <= 0.70 * base.flat.nbytes


def test_neighbouring_floats_are_neighbouring_integers_across_zero_too():
    """So that a small step is a small number, whatever its sign and exponent."""
    floats = np.array([-np.inf, -1.5, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.5, np.inf], np.float32)
    integers = _ordered(floats)
    assert (np.diff(integers.astype(np.int64)) > 0).all()
    assert integers[3:7].tolist() == [-2, -1, 0, 1]
    assert _unordered(integers).tobytes() == floats.tobytes()


def test_no_change_costs_almost_nothing():
    """Every plane is zero."""
    base = make()
    assert len(encode_diff(base, base)) < 150


def test_a_diff_is_refused_on_any_other_base_before_it_is_decoded():
    """Even one weight apart in the sign of its zero; the planes may be garbage by then."""
    base = make()
    data = encode_diff(base, stepped(base, 0.02))
    flat = base.flat.copy()
    flat[0] = 0.0
    with_zero = Weights(base.layout, flat)
    flat[0] = -0.0
    with_negative_zero = Weights(base.layout, flat)
    for_zero = encode_diff(with_zero, base)
    with pytest.raises(DigestError, match="starts from other weights"):
        apply_diff(with_zero, data)
    with pytest.raises(DigestError, match="starts from other weights"):
        apply_diff(with_negative_zero, for_zero)
    with pytest.raises(DigestError, match="starts from other weights"):
        apply_diff(with_zero, data[:40])


def test_a_diff_is_refused_for_another_layout_of_the_same_size():
    """Same numbers, other names or shapes."""
    base = make()
    data = encode_diff(base, stepped(base, 0.02))
    for tensors in (
        {"v": base.flat},
        {"w": base.flat.reshape(2, -1)},
        {"w": base.flat[:-1]},
    ):
        with pytest.raises(DigestError, match="another layout"):
            apply_diff(Weights.from_tensors(tensors), data)
    with pytest.raises(WireFormatError, match="publish a snapshot"):
        encode_diff(base, Weights.from_tensors({"v": base.flat}))


def test_a_result_that_was_not_published_is_refused():
    """A bit of the stored mantissa plane flips on the way."""
    base = make()
    data = bytearray(encode_diff(base, stepped(base, 0.02)))
    data[60] ^= 1  # the lowest plane is noise and therefore stored raw
    with pytest.raises(DigestError, match="fetch the keyframe"):
        apply_diff(base, bytes(data))


@pytest.mark.parametrize(("index", "value"), [(0, 0), (4, 2), (5, 2), (6, 1)])
def test_another_magic_format_or_kind_is_refused(index, value):
    """An old reader does not guess at a new frame."""
    base = make()
    data = bytearray(encode_diff(base, base))
    data[index] = value
    with pytest.raises(WireFormatError):
        apply_diff(base, bytes(data))
