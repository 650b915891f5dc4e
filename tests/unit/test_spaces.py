"""Spaces as plain data, and observations on their way into a float32 vector."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rl4sys_stream.errors import ConfigError, ObservationError
from rl4sys_stream.spaces import (
    Box,
    Discrete,
    as_space,
    flat_dim,
    flatten,
    space_from_json,
    space_to_json,
)

BOUNDS = st.none() | st.floats(-1e6, 1e6)


@st.composite
def spaces(draw):
    """Any valid one."""
    if draw(st.booleans()):
        return Discrete(draw(st.integers(1, 1000)))
    low, high = draw(BOUNDS), draw(BOUNDS)
    if low is not None and high is not None and low >= high:
        low = None
    return Box(tuple(draw(st.lists(st.integers(1, 9), max_size=3))), low, high)


@given(spaces())
def test_a_space_survives_its_json_form(space):
    """Equal, and through either door."""
    assert space_from_json(space_to_json(space)) == space
    assert as_space(space_to_json(space)) == space
    assert as_space(space) is space


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "expected"),
        ([], "expected"),
        ({}, "unknown type None"),
        ({"type": "multi"}, "unknown type 'multi'"),
        ({"type": ["box"]}, "unknown type"),
        ({"type": "box"}, "shape must be a list"),
        ({"type": "box", "shape": "8"}, "shape must be a list"),
        ({"type": "box", "shape": [8.0]}, "an integer"),
        ({"type": "box", "shape": [True]}, "an integer"),
        ({"type": "box", "shape": [0]}, "positive axes"),
        ({"type": "box", "shape": [-1]}, "positive axes"),
        ({"type": "box", "shape": [1 << 11, 1 << 10]}, "at most"),
        ({"type": "box", "shape": [4], "low": 1, "high": 1}, "low < high"),
        ({"type": "box", "shape": [4], "low": "x"}, "finite number"),
        ({"type": "box", "shape": [4], "high": math.inf}, "finite number"),
        ({"type": "box", "shape": [4], "dtype": "f8"}, "unknown key 'dtype'"),
        ({"type": "discrete"}, "an integer"),
        ({"type": "discrete", "n": 0}, "n"),
        ({"type": "discrete", "n": 2.0}, "an integer"),
        ({"type": "discrete", "n": 2, "start": 1}, "unknown key 'start'"),
    ],
)
def test_data_that_describes_no_space_is_refused_by_its_path(data, message):
    """With what is expected there."""
    with pytest.raises(ConfigError, match=message) as caught:
        space_from_json(data, path="observation_space")
    assert str(caught.value).startswith("observation_space")


def look_alike(name: str, **attributes: object) -> object:
    """An object of a class called like Gymnasium's."""
    return type(name, (), attributes)()


def test_gymnasiums_spaces_are_known_by_their_looks():
    """No import needed; a common finite bound is kept, others are left out."""
    low = np.full((2, 3), -1.0)
    assert as_space(look_alike("Box", shape=(2, 3), low=low, high=low + 2)) == Box((2, 3), -1, 1)
    mixed = np.array([0.0, 1.0])
    infinite = np.array([np.inf, np.inf])
    assert as_space(look_alike("Box", shape=(2,), low=mixed, high=infinite)) == Box((2,))
    assert as_space(look_alike("Discrete", n=np.int64(3), start=np.int64(0))) == Discrete(3)
    with pytest.raises(ConfigError, match="start at 0"):
        as_space(look_alike("Discrete", n=3, start=1), path="action_space")
    with pytest.raises(ConfigError, match="MultiDiscrete is no supported space"):
        as_space(look_alike("MultiDiscrete", nvec=[2, 2]), path="action_space")


@given(spaces())
def test_the_flat_length_is_that_of_a_flattened_observation(space):
    """One-hot for a discrete one."""
    value = 0 if isinstance(space, Discrete) else np.zeros(space.shape)
    flat = flatten(space, value)
    assert flat.shape == (flat_dim(space),)
    assert flat.dtype == np.float32


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(max_dims=3, max_side=4),
        elements={"min_value": 0, "max_value": 1},
    )
)
def test_an_observation_is_copied_in_row_major_order(array):
    """The application may write its next one into the same buffer, laid out as it likes."""
    space = Box(array.shape)
    for given_as in (array, np.asfortranarray(array), array.tolist()):
        flat = flatten(space, given_as)
        np.testing.assert_array_equal(flat, array.reshape(-1).astype(np.float32))
        assert not np.shares_memory(flat, array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_an_element_that_is_not_finite_is_named(value):
    """Also one that only float32 cannot hold."""
    observation = np.zeros(5)
    observation[3] = value
    with np.errstate(over="ignore"), pytest.raises(ObservationError, match="element 3"):
        flatten(Box((5,)), observation)


def test_huge_but_finite_observations_pass():
    """Their squares overflow, which the fast check must not take for an infinity."""
    observation = np.array([3e38, -3e38, 1.0], np.float32)
    np.testing.assert_array_equal(flatten(Box((3,)), observation), observation)


@pytest.mark.parametrize(
    "observation", [[1.0, 2.0], np.zeros((3, 1)), 0.0, "abc", [[1, 2], [3]], None, {}, ["x"] * 3]
)
def test_an_observation_of_another_shape_or_kind_is_refused(observation):
    """With both shapes."""
    with pytest.raises(ObservationError):
        flatten(Box((3,)), observation)


@pytest.mark.parametrize("value", [0, np.int64(2), 1.0, np.array(1), np.array([2]), [0]])
def test_a_discrete_observation_becomes_one_hot(value):
    """Whatever it comes wrapped in."""
    flat = flatten(Discrete(3), value)
    assert flat.sum() == 1.0
    assert flat[int(np.asarray(value).item())] == 1.0


@pytest.mark.parametrize(
    "value", [-1, 3, 0.5, math.nan, math.inf, True, "1", [0, 1], None, [], 10**30, {}]
)
def test_another_discrete_observation_is_refused(value):
    """By name, never by a crash."""
    with pytest.raises(ObservationError):
        flatten(Discrete(3), value)


def test_what_numpy_and_people_write_becomes_plain_numbers():
    """A spec travels as JSON, and must come back equal to what was registered."""
    shape: Any = [np.int64(3), 2]
    box = Box(shape, float(np.float32(0)), np.inf)
    assert box == Box((3, 2), 0.0)
    assert space_from_json(json.loads(json.dumps(space_to_json(box)))) == box
    assert json.dumps(space_to_json(Discrete(shape[0]))) == '{"type": "discrete", "n": 3}'


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Box, (3,)),
        (Box, ("3",)),
        (Box, ((2.5,),)),
        (Box, ((3,), float("nan"))),
        (Box, ((3,), np.zeros(3), np.ones(3))),
        (Discrete, (2.5,)),
        (Discrete, (True,)),
        (Discrete, ("3",)),
    ],
    ids=str,
)
def test_a_space_that_cannot_be_is_a_named_error_when_it_is_made(kind: Any, arguments: Any):
    """Later it would be every decision's error, or the registry's."""
    with pytest.raises(ConfigError, match=r"Box|Discrete"):
        kind(*arguments)
