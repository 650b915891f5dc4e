"""What actions look like: sizes, from raw to applied, and back for what applications decide."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rl4sys_stream.errors import ConfigError, UsageError
from rl4sys_stream.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from rl4sys_stream.spaces.actions import MAX_BOUND, ActionFormat

F = np.float32
LEVERS = Box((2, 3), (-1.0, 0.0, 0.1, 5.0, -9.0, 7.0), (1.0, 4.0, 0.7, 6.0, -3.0, 7.0))
"""Bounds by element, of which the last are one."""


def vector(action: object) -> NDArray[np.float32]:
    """A Box's action, after a look at its type."""
    assert isinstance(action, np.ndarray)
    assert action.dtype == np.float32
    return action


@pytest.mark.parametrize(
    ("space", "nvec", "dim", "choices", "step_bytes"),
    [
        (Discrete(4), (4,), 1, 4, 12),
        (Discrete(1), (1,), 1, 1, 9),
        (MultiDiscrete((3, 2)), (3, 2), 2, 5, 21),
        (MultiBinary(3), (2, 2, 2), 3, 6, 30),
        (Box((2, 3)), (), 6, 0, 24),
        (Box(()), (), 1, 0, 4),
    ],
)
def test_a_format_says_the_sizes_of_its_space(space, nvec, dim, choices, step_bytes):
    """Columns, masks, logits and the configuration's limits follow from them."""
    found = ActionFormat.of(space)
    assert (found.nvec, found.dim, found.choices) == (nvec, dim, choices)
    assert found.step_bytes == step_bytes
    assert found.single == isinstance(space, Discrete)
    assert found.continuous == isinstance(space, Box)


@pytest.mark.parametrize("space", [Discrete(3), MultiDiscrete((3, 2)), MultiBinary(2)])
def test_integers_are_never_squashed(space):
    """Whatever the network's setting says."""
    assert not ActionFormat.of(space, squash=True).squash


@pytest.mark.parametrize("space", [Dict({"a": Discrete(2)}), Tuple((Discrete(2), Box((1,))))])
def test_actions_of_several_parts_are_refused_in_words(space):
    """Nothing could draw them, and no column could hold them."""
    with pytest.raises(ConfigError, match="side by side") as caught:
        ActionFormat.of(space)
    assert caught.value.path == "action_space"


@pytest.mark.parametrize("space", [Box((2,)), Box((2,), low=0.0), Box((2,), high=(1.0, 2.0))])
def test_squashing_needs_both_bounds(space):
    """Tanh ends somewhere; the message says what else there is."""
    with pytest.raises(ConfigError, match="squash_output to false"):
        ActionFormat.of(space, squash=True)
    assert not ActionFormat.of(space).squash


def test_bounds_are_those_of_each_element_and_cannot_be_written_to():
    """A format is shared by threads."""
    found = ActionFormat.of(LEVERS)
    assert found.low.tolist() == [F(x) for x in (-1.0, 0.0, 0.1, 5.0, -9.0, 7.0)]
    assert found.high.tolist() == [F(x) for x in (1.0, 4.0, 0.7, 6.0, -3.0, 7.0)]
    half = ActionFormat.of(Box((2,), low=-1.0))
    assert (half.low.tolist(), half.high.tolist()) == ([-1, -1], [math.inf, math.inf])
    for bound in (found.low, found.high):
        with pytest.raises(ValueError, match="read-only"):
            bound[0] = 0


def test_clipped_actions_are_the_raw_ones_within_their_bounds():
    """Element by element, in the Box's shape; at a bound, the bound itself."""
    actions = ActionFormat.of(LEVERS)
    raw = np.array([-3.0, 2.5, 0.1, 99.0, -9.0, -7.0], F)
    found = vector(actions.applied(raw))
    assert found.tolist() == [[-1.0, 2.5, float(F(0.1))], [6.0, -9.0, 7.0]]
    half = ActionFormat.of(Box((2,), low=0.0))
    assert vector(half.applied(np.array([-1.0, 1e30], F))).tolist() == [0.0, float(F(1e30))]
    free = ActionFormat.of(Box((2,)))
    assert vector(free.applied(np.array([-1e30, 3.0], F))).tolist() == [float(F(-1e30)), 3.0]


def test_squashed_actions_are_those_of_the_formula():
    """From low on, (tanh(raw) + 1)/2 of the width, to float32's precision; far out the bounds."""
    actions = ActionFormat.of(LEVERS, squash=True)
    low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
    for raw in np.random.default_rng(0).normal(0, 2, (200, 6)).astype(F):
        found = vector(actions.applied(raw))
        assert found.shape == (2, 3)
        expected = low + (np.tanh(raw.astype(np.float64)) + 1) / 2 * (high - low)
        assert np.abs(found.reshape(-1) - expected).max() < 3e-6
    middle = vector(actions.applied(np.zeros(6, F))).reshape(-1)
    assert middle == pytest.approx([0.0, 2.0, 0.4, 5.5, -6.0, 7.0])
    for far in (20.0, 1e30, np.finfo(F).max):
        assert (vector(actions.applied(np.full(6, far, F))).reshape(-1) == actions.high).all()
        assert (vector(actions.applied(np.full(6, -far, F))).reshape(-1) == actions.low).all()


FINITE = st.floats(-1e6, 1e6, width=32)


@given(
    hnp.arrays(np.float32, 4, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)),
    st.tuples(*[FINITE] * 4),
    st.tuples(*[st.floats(0, 1e6, width=32)] * 4),
    st.booleans(),
)
def test_what_is_applied_is_within_the_bounds_whatever_is_drawn(raw, low, widths, squash):
    """An environment may refuse what is a rounding error beyond."""
    high = tuple(float(F(a) + F(w)) for a, w in zip(low, widths, strict=True))
    if high == low:
        return
    actions = ActionFormat.of(Box((4,), low, high), squash=squash)
    found = vector(actions.applied(raw))
    assert (found >= np.array(low, F)).all()
    assert (found <= np.array(high, F)).all()


@pytest.mark.parametrize("squash", [False, True])
def test_bounds_as_far_apart_as_float32_goes_overflow_nowhere(squash):
    """Gymnasium writes its largest float32 where it means none; JSON may say more than that."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bound in (MAX_BOUND, 1e300):
            actions = ActionFormat.of(Box((3,), -bound, bound), squash=squash)
            raw = np.array([-0.5, 0.0, 20.0], F)
            found = vector(actions.applied(raw))
            assert np.isfinite(found).all()
            if squash:
                assert found == pytest.approx([math.tanh(-0.5) * MAX_BOUND, 0.0, MAX_BOUND])
            assert np.isfinite(actions.raw([-MAX_BOUND, 0.0, MAX_BOUND])).all()


@pytest.mark.parametrize(
    ("space", "raw"),
    [
        (MultiDiscrete((3, 2)), np.array([2, 1])),
        (MultiBinary(2), np.array([0, 1])),
        (Box((2,)), np.array([0.25, 0.5], F)),
    ],
)
def test_the_application_may_write_to_what_it_gets(space, raw):
    """What is recorded stays what was drawn."""
    applied: Any = ActionFormat.of(space).applied(raw)
    before = raw.copy()
    applied += 1
    assert raw.tolist() == before.tolist()


def test_applied_actions_have_the_types_that_gymnasium_takes():
    """An int, int64 [K], and int8 [n]."""
    assert ActionFormat.of(Discrete(4)).applied(3) == 3
    two: Any = ActionFormat.of(MultiDiscrete((3, 2))).applied(np.array([2, 0]))
    assert (two.dtype, two.tolist()) == (np.int64, [2, 0])
    bits: Any = ActionFormat.of(MultiBinary(3)).applied(np.array([1, 0, 1]))
    assert (bits.dtype, bits.tolist()) == (np.int8, [1, 0, 1])
    scalar = vector(ActionFormat.of(Box((), -1, 1)).applied(np.array([4.0], F)))
    assert (scalar.shape, float(scalar)) == ((), 1.0)


@pytest.mark.parametrize(
    ("space", "decision", "raw"),
    [
        (Discrete(4), np.int8(3), 3),
        (MultiDiscrete((3, 2)), (2, 1), [2, 1]),
        (MultiDiscrete((3, 2)), np.array([2, 1], np.uint8), [2, 1]),
        (MultiBinary(3), [True, False, True], [1, 0, 1]),
        (Box((2,), 0, 1), [1, 0], [1.0, 0.0]),
        (Box((2,), 0, 1), np.array([7.5, -1.0]), [7.5, -1.0]),
        (Box((1, 2)), [[0.5, 0.25]], [0.5, 0.25]),
        (Box(()), 0.5, [0.5]),
    ],
)
def test_what_an_application_decides_has_a_raw_action(space, decision, raw):
    """Of the raw action's type; beyond the bounds it is clipped later, as a drawn one is."""
    found: Any = ActionFormat.of(space).raw(decision)
    if isinstance(space, Discrete):
        assert (type(found), found) == (int, raw)
        return
    assert found.dtype == (np.float32 if isinstance(space, Box) else np.int64)
    assert found.tolist() == raw


def test_a_squashed_decision_comes_back_as_it_was():
    """But for the bounds, which no raw action reaches: they come back to a millionth."""
    actions = ActionFormat.of(LEVERS, squash=True)
    spread = (actions.high - actions.low).astype(np.float64)
    for share in (0.0, 1e-3, 0.3, 0.5, 0.999, 1.0):
        decision = (actions.low + share * spread).astype(F).reshape(2, 3)
        raw = actions.raw(decision)
        assert np.isfinite(raw).all()
        found = vector(actions.applied(raw))
        assert np.abs(found - decision).max() < 4e-6
    beyond = actions.raw(np.full((2, 3), 100.0))
    assert vector(actions.applied(beyond)).reshape(-1) == pytest.approx(actions.high, abs=4e-6)


def test_an_element_with_one_value_has_a_raw_action_when_squashed():
    """No division by its width, which is 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw: Any = ActionFormat.of(Box((2,), (0.0, 7.0), (1.0, 7.0)), squash=True).raw([0.5, 7.0])
    assert raw.tolist() == [0.0, 0.0]


REFUSED: list[tuple[Space, object, str]] = [
    (Discrete(3), 3, "0 to 2"),
    (Discrete(3), 1.0, "no integer"),
    (Discrete(3), [1], "no integer"),
    (MultiDiscrete((3, 2)), [2, 2], r"2 in element 1; it is one of 0 to 1"),
    (MultiDiscrete((3, 2)), [-1, 0], "-1 in element 0"),
    (MultiDiscrete((3, 2)), [1], "expected 2 integers"),
    (MultiDiscrete((3, 2)), [[1, 1]], "expected 2 integers"),
    (MultiDiscrete((3, 2)), [1.0, 1.0], "expected 2 integers"),
    (MultiDiscrete((3, 2)), 1, "expected 2 integers"),
    (MultiDiscrete((3, 2)), None, "expected 2 integers"),
    (MultiDiscrete((3, 2)), [[1], [1, 2]], "fallback decided"),
    (MultiDiscrete((3, 2)), np.array([1 << 63, 0], np.uint64), "element 0"),
    (MultiBinary(2), [2, 0], "2 in element 0; it is one of 0 to 1"),
    (Box((2,)), [0.5], r"numbers of shape \(2,\)"),
    (Box((2,)), [[0.5, 0.5]], r"numbers of shape \(2,\)"),
    (Box(()), [0.5], r"numbers of shape \(\)"),
    (Box((2,)), ["a", "b"], "numbers of shape"),
    (Box((2,)), [1 + 2j, 0], "numbers of shape"),
    (Box((2,)), [0.5, math.nan], "not finite"),
    (Box((2,)), [0.5, -math.inf], "not finite"),
    (Box((2,)), [0.5, 1e39], "not finite as float32"),
]


@pytest.mark.parametrize(("space", "decision", "words"), REFUSED)
def test_what_is_no_element_of_the_space_is_refused_in_words(space, decision, words):
    """It is the application's own code that decided; numpy's warnings are not for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=words):
            ActionFormat.of(space).raw(decision)


def test_a_refusal_does_not_print_a_long_decision_whole():
    """It may have a million elements."""
    with pytest.raises(UsageError) as caught:
        ActionFormat.of(MultiDiscrete((3, 2))).raw(list(range(10_000)))
    assert len(str(caught.value)) < 200
