"""Gymnasium's spaces become ours, and observations come out flat as Gymnasium makes them."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces as gym
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Tuple,
    as_space,
    flat_dim,
    flatten,
    space_from_json,
    space_to_json,
)

axes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
some_axes = st.lists(st.integers(1, 3), min_size=1, max_size=2)


@st.composite
def boxes(draw):
    """Of any number type, with any bounds."""
    shape = draw(axes)
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64, np.uint8]))
    if np.issubdtype(dtype, np.integer):
        low = np.array(draw(st.integers(0, 3)), dtype)
        return gym.Box(np.full(shape, low), np.full(shape, 200, dtype), shape, dtype)
    bounds = [draw(st.sampled_from([-np.inf, -1.0, 0.0])), draw(st.sampled_from([1.0, np.inf]))]
    lows, highs = (np.full(shape, bound, dtype) for bound in bounds)
    if shape and draw(st.booleans()):
        highs.flat[0] = 0.5
    return gym.Box(lows, highs, shape, dtype)


leaves = (
    boxes()
    | st.integers(1, 9).map(gym.Discrete)
    | some_axes.map(lambda shape: gym.MultiDiscrete(np.full(shape, 3)))
    | st.lists(st.integers(1, 5), min_size=1, max_size=4).map(gym.MultiDiscrete)
    | (st.integers(1, 9) | some_axes.map(tuple)).map(gym.MultiBinary)
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(st.sampled_from("zyxab"), inner, min_size=1, max_size=3).map(gym.Dict)
        | st.lists(inner, min_size=1, max_size=3).map(gym.Tuple)
    ),
    max_leaves=6,
)


@given(anything, st.integers(0, 2**31 - 1))
def test_observations_come_out_flat_as_gymnasium_makes_them(space, seed):
    """Weights that were trained elsewhere on flattened observations mean the same here."""
    space.seed(seed)
    ours = as_space(space)
    assert space_from_json(space_to_json(ours)) == ours
    assert flat_dim(ours) == gym.flatdim(space)
    for _ in range(3):
        observation = space.sample()
        wanted = np.asarray(gym.flatten(space, observation), np.float32)
        np.testing.assert_array_equal(flatten(ours, observation), wanted)


def test_every_kind_of_gymnasiums_becomes_its_namesake():
    """A Dict keeps the order that Gymnasium gave it."""
    space = gym.Dict(
        {
            "load": gym.Box(-1.0, 1.0, (2,)),
            "all": gym.Tuple((gym.Discrete(3), gym.MultiBinary(4), gym.MultiDiscrete([3, 2]))),
        }
    )
    assert as_space(space) == Dict(
        {
            "all": Tuple((Discrete(3), MultiBinary(4), MultiDiscrete((3, 2)))),
            "load": Box((2,), -1.0, 1.0),
        }
    )


def test_bounds_are_kept_that_are_finite_for_all_elements():
    """By element where they differ."""
    low, high = np.array([-1.0, -2.0]), np.array([1.0, np.inf])
    assert as_space(gym.Box(low, high, dtype=np.float64)) == Box((2,), (-1.0, -2.0))
    assert as_space(gym.Box(0, 255, (4, 4), np.uint8)) == Box((4, 4), 0.0, 255.0)
    many = np.arange(1 << 15, dtype=np.float64)
    assert as_space(gym.Box(many, many + 1, dtype=np.float64)) == Box((1 << 15,))
    image = gym.Box(0, 255, (210, 160, 3), np.uint8)
    assert as_space(image) == Box((210, 160, 3), 0.0, 255.0)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gym.Discrete(3, start=1), "^space: a Discrete space must start at 0; shift it yourself"),
        (gym.MultiDiscrete([3, 2], start=[0, 1]), "^space: a MultiDiscrete space must start at 0"),
        (gym.Text(3), "^space: Text is no supported space; use Box, .* Dict or Tuple"),
        (gym.Sequence(gym.Discrete(3)), "Sequence is no supported space"),
        (gym.Dict({"a": gym.Tuple((gym.Text(3),))}), r"^space\['a'\]\[0\]: Text is no supported"),
        (gym.Dict(a=gym.Discrete(3, start=1)), r"^space\['a'\]: a Discrete space must start at 0"),
        (gym.Tuple((gym.Box(0, 1, (1 << 21,)),)), r"^space\[0\]: a Box needs positive axes"),
        (gym.Tuple([gym.Discrete(2)] * 1025), "^space: a Tuple needs 1 to 1024 spaces"),
        (gym.Dict({}), "^space: a Dict needs 1 to 1024 spaces"),
    ],
    ids=[
        "discrete_start", "multi_discrete_start", "text", "sequence", "nested_text", "nested_start",
        "large", "many", "none",
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_its_place(space, words):
    """And with what to do instead."""
    with pytest.raises(ConfigError, match=words):
        as_space(space)


def look_alike(name: str, **attributes: object) -> object:
    """An object of a class called like Gymnasium's."""
    return type(name, (), attributes)()


def test_gymnasiums_spaces_are_known_by_their_looks():
    """No import needed: older releases and forks of it have the same."""
    low = np.full((2, 3), -1.0)
    assert as_space(look_alike("Box", shape=(2, 3), low=low, high=low + 2)) == Box((2, 3), -1, 1)
    assert as_space(look_alike("Box", shape=(2,))) == Box((2,))
    assert as_space(look_alike("Discrete", n=np.int64(3), start=np.int64(0))) == Discrete(3)
    assert as_space(look_alike("MultiDiscrete", nvec=[2, 2])) == MultiDiscrete((2, 2))
    with pytest.raises(ConfigError, match="Box is no supported space"):
        as_space(look_alike("Box", width=3))


@pytest.mark.parametrize("name", ["CartPole-v1", "Blackjack-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_environments_observe_what_their_spaces_say(name):
    """As they come, without a wrapper."""
    environment = gymnasium.make(name)
    observation, _ = environment.reset(seed=1)
    space = environment.observation_space
    wanted = gym.flatten(space, observation)
    np.testing.assert_array_equal(flatten(as_space(space), observation), wanted)
    environment.close()
