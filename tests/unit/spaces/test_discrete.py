"""Discrete observations: one-hot, or a named error whatever the application gives."""

import numpy as np
import pytest

from rl4sys_stream.errors import ObservationError
from rl4sys_stream.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, flatten

NO_STATES = [
    float("nan"), float("inf"), "abc", "1", None, 0.5, 1.5, -1, 3, True, np.True_, 1j, [0, 1], [],
    {}, 10**30, 2**64, 2**63 + 1.0,
]  # fmt: skip


@pytest.mark.parametrize("bad", NO_STATES)
def test_what_is_no_state_is_an_observation_error(bad):
    """Never a bare ValueError, TypeError or OverflowError of numpy's or Python's."""
    with pytest.raises(ObservationError, match=r"the observation is .*integer in 0…2"):
        flatten(Discrete(3), bad)


@pytest.mark.parametrize("state", [2, 2.0, np.int64(2), np.uint8(2), np.array(2), np.array([2])])
def test_a_state_becomes_one_hot(state):
    """Also from a numpy scalar or a one-element array."""
    assert flatten(Discrete(3), state).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("states", [[2, 0], (2, 0), [2.0, 0.0], np.array([[2], [0]], np.uint8)])
def test_several_states_become_one_hot_one_after_another(states):
    """Row-major where they come with several axes."""
    assert flatten(MultiDiscrete((3, 2)), states).tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([3, 0], r"observation\[0\] is 3; expected an integer in 0…2"),
        ([2, 2], r"observation\[1\] is 2; expected an integer in 0…1"),
        ([0, -1], r"observation\[1\] is -1"),
        ([0.0, 0.5], r"observation\[1\] is 0.5"),
        ([0.0, np.nan], r"observation\[1\] is nan"),
        ([0.0, np.inf], r"observation\[1\] is inf"),
        (np.array([0, 2**64 - 1], np.uint64), r"observation\[1\] is 1844"),
        ([True, False], "not numeric"),
        ([0, 10**30], "not numeric"),
        (["0", "1"], "not numeric"),
        ([0, None], "not numeric"),
        ([[0], [1, 2]], "not numeric"),
        ([0], "has shape"),
        ([0, 0, 0], "has shape"),
        (0, "has shape"),
        (None, "has shape"),
    ],
    ids=repr,
)
def test_a_state_out_of_its_range_is_named_by_its_place(bad, words):
    """The application has many numbers in one observation."""
    with pytest.raises(ObservationError, match=words):
        flatten(MultiDiscrete((3, 2)), bad)


@pytest.mark.parametrize("bits", [[1, 0, 1], [True, False, True], np.array([[1, 0, 1]], np.int8)])
def test_bits_become_zeros_and_ones(bits):
    """Booleans, too, are what these mean."""
    assert flatten(MultiBinary(3), bits).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([0, 2, 1], r"observation\[1\] is 2; expected an integer in 0…1"),
        ([0, 1, -1], r"observation\[2\] is -1"),
        ([0, 0.5, 1], r"observation\[1\] is 0.5"),
        ([0, np.nan, 1], r"observation\[1\] is nan"),
        ([0, 1], "has shape"),
        (["0", "1", "1"], "not numeric"),
        ([0, {}, 1], "not numeric"),
    ],
    ids=repr,
)
def test_what_is_no_bit_is_named_by_its_place(bad, words):
    """A 2 among the bits is a slip of the application's, which it should hear of."""
    with pytest.raises(ObservationError, match=words):
        flatten(MultiBinary(3), bad)


def test_places_are_named_through_all_levels():
    """With the keys that the application knows."""
    space = Dict({"load": Box((2,)), "queue": MultiDiscrete((9, 9, 9, 5))})
    with pytest.raises(ObservationError, match=r"^observation\['queue'\]\[3\] is 5; expected"):
        flatten(space, {"load": [0, 0], "queue": [0, 0, 0, 5]})
