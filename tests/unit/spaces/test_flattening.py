"""Observations on their way into a float32 vector."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rl4sys_stream.errors import ObservationError
from rl4sys_stream.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
    flat_dim,
    flatten,
    make_flattener,
)
from tests.unit.spaces.strategies import spaces

SYSTEM = Dict(
    {
        "queue": Tuple((Box((2,)), Discrete(3))),
        "load": Box(()),
        "on": MultiBinary(2),
        "tiers": MultiDiscrete((2, 2)),
    }
)
FINE: dict[str, Any] = {"queue": ([0.5, 1.5], 2), "load": 0.25, "on": [1, 0], "tiers": (1, 0)}


def zero(space: Space) -> Any:
    """The first element of `space`, as an application might give it."""
    match space:
        case Box():
            return np.zeros(space.shape)
        case Discrete():
            return 0
        case MultiDiscrete():
            return [0] * len(space.nvec)
        case MultiBinary():
            return [0] * space.n
        case Dict():
            return {key: zero(part) for key, part in reversed(space.spaces)}
        case Tuple():
            return tuple(zero(part) for part in space.spaces)


@given(spaces())
def test_the_flat_length_is_that_of_a_flattened_observation(space):
    """One-hot for the discrete kinds."""
    flat = flatten(space, zero(space))
    assert flat.shape == (flat_dim(space),)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(make_flattener(space)(zero(space)), flat)


def test_parts_follow_one_another_in_the_spaces_order():
    """Not in the observation's: applications build their mappings as they like."""
    wanted = [0.5, 1.5, 0.0, 0.0, 1.0, 0.25, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert flatten(SYSTEM, FINE).tolist() == wanted
    assert flatten(SYSTEM, dict(reversed(FINE.items()))).tolist() == wanted


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"queue": ([0.5, np.nan], 2)}, r"element 1 of observation\['queue'\]\[0\] is nan"),
        ({"queue": ([0.5, 1e39], 2)}, r"element 1 of observation\['queue'\]\[0\] is inf"),
        ({"load": math.inf}, r"element 0 of observation\['load'\] is inf"),
        ({"load": np.float64(-1e39)}, r"element 0 of observation\['load'\] is -inf"),
        ({"load": "high"}, r"observation\['load'\] is not numeric"),
        ({"load": 10**400}, r"observation\['load'\] is not numeric"),
        ({"load": [0.25]}, r"observation\['load'\] has shape \(1,\), .* says \(\)"),
        ({"queue": ([0.5, 1.5], 3)}, r"observation\['queue'\]\[1\] is 3; .* 0…2"),
        ({"queue": ([0.5], 2)}, r"observation\['queue'\]\[0\] has shape \(1,\), .* says \(2,\)"),
        ({"queue": ([0.5, 1.5],)}, r"observation\['queue'\] is .*; expected a tuple of 2"),
        ({"queue": ([0.5, 1.5], 2, 0)}, r"observation\['queue'\] is .*; expected a tuple of 2"),
        ({"queue": "ab"}, r"observation\['queue'\] is 'ab'; expected a tuple of 2"),
        ({"queue": {0: [0.5, 1.5], 1: 2}}, r"observation\['queue'\] is .*; expected a tuple"),
        ({"on": [1, 2]}, r"observation\['on'\]\[1\] is 2"),
        ({"more": 1}, r"the observation has 'more', of which"),
    ],
    ids=str,
)
def test_the_part_of_an_observation_that_does_not_fit_is_named(part, words):
    """By the path that leads to it in the application's own words."""
    for make_flat in (make_flattener(SYSTEM), lambda value: flatten(SYSTEM, value)):
        with pytest.raises(ObservationError, match=words):
            make_flat({**FINE, **part})


def test_a_missing_key_is_named():
    """The first of them, in the order of the alphabet."""
    with pytest.raises(ObservationError, match="the observation lacks 'load'"):
        flatten(SYSTEM, {"queue": FINE["queue"], "tiers": FINE["tiers"]})
    with pytest.raises(ObservationError, match="expected a mapping with the keys"):
        flatten(SYSTEM, list(FINE.values()))


def test_an_error_leaves_nothing_behind():
    """Each observation gets a vector of its own, also after one that was refused half-way."""
    flattener = make_flattener(SYSTEM)
    with pytest.raises(ObservationError):
        flattener({**FINE, "tiers": (0, 9)})
    first, second = flattener(FINE), flattener(FINE)
    assert first.tolist() == second.tolist() == flatten(SYSTEM, FINE).tolist()
    assert not np.shares_memory(first, second)


def test_huge_but_finite_parts_pass():
    """Their squares overflow, which the fast check must not take for an infinity."""
    assert flatten(Tuple((Box(()), Box((1,)))), (3e38, [-3e38])).tolist() == [
        float(np.float32(3e38)),
        float(np.float32(-3e38)),
    ]


@given(spaces())
def test_a_space_goes_to_other_processes(space):
    """Applications make agents in children of theirs; a deep copy goes the same way."""
    assert deepcopy(space) == space


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(max_dims=3, max_side=4),
        elements={"min_value": 0, "max_value": 1},
    )
)
def test_an_observation_is_copied_in_row_major_order(array):
    """The application may write its next one into the same buffer, laid out as it likes."""
    wanted = array.reshape(-1).astype(np.float32)
    for given_as in (array, np.asfortranarray(array), array.tolist()):
        flat = flatten(Box(array.shape), given_as)
        np.testing.assert_array_equal(flat, wanted)
        assert not np.shares_memory(flat, array)
        nested = flatten(Dict({"a": Box(array.shape)}), {"a": given_as})
        np.testing.assert_array_equal(nested, wanted)
        assert not np.shares_memory(nested, array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_an_element_that_is_not_finite_is_named(value):
    """Also one that only float32 cannot hold."""
    observation = np.zeros(5)
    observation[3] = value
    with pytest.raises(ObservationError, match="element 3 of the observation"):
        flatten(Box((5,)), observation)


def test_huge_but_finite_observations_pass():
    """Their squares overflow, which the fast check must not take for an infinity."""
    observation = np.array([3e38, -3e38, 1.0], np.float32)
    np.testing.assert_array_equal(flatten(Box((3,)), observation), observation)


@pytest.mark.parametrize(
    "observation",
    [
        [1.0, 2.0], np.zeros((3, 1)), 0.0, "abc", [[1, 2], [3]], None, {}, ["x"] * 3,
        [0.0, 0.0, 10**400],
    ],
)  # fmt: skip
def test_an_observation_of_another_shape_or_kind_is_refused(observation):
    """With both shapes."""
    with pytest.raises(ObservationError):
        flatten(Box((3,)), observation)
