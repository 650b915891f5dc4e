"""Spaces as plain data: checked when they are made, and equal after their JSON form."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
    as_space,
    space_from_json,
    space_to_json,
    without_bounds,
)
from tests.unit.spaces.strategies import spaces

DISCRETE = {"type": "discrete", "n": 4}


def nested_lists(depth: int) -> list[Any]:
    """As deep as orjson lets through: printing one whole would overflow the stack."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@given(spaces())
def test_a_space_survives_its_json_form(space):
    """Equal, and through either door, and through text."""
    assert space_from_json(space_to_json(space)) == space
    assert as_space(json.loads(json.dumps(space_to_json(space)))) == space
    assert as_space(space) is space
    assert hash(as_space(space_to_json(space))) == hash(space)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "expected"),
        ([], "expected"),
        ({}, "unknown type None"),
        ({"type": "multi"}, "unknown type 'multi'"),
        (nested_lists(990), "expected"),
        ({"type": nested_lists(990)}, "unknown type"),
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
        ({"type": "box", "shape": [4], "low": [0, 0, 0, "x"]}, "finite number"),
        ({"type": "box", "shape": [4], "low": [0, 0, 0, 10**400]}, "finite number"),
        ({"type": "box", "shape": [4], "low": [0, 1, 2]}, "one for each of its 4 elements"),
        ({"type": "box", "shape": [4], "low": [[0, 1, 2, 3]]}, "finite number"),
        ({"type": "box", "shape": [4], "low": [0] * (1 << 15)}, "finite number"),
        ({"type": "box", "shape": [2], "low": [0, 2], "high": 1}, "low < high"),
        ({"type": "box", "shape": [1 << 15], "low": [0], "high": 1}, "one for each"),
        ({"type": "box", "shape": [4], "dtype": "f8"}, "unknown key 'dtype'"),
        ({"type": "discrete"}, "an integer"),
        ({"type": "discrete", "n": 0}, "n"),
        ({"type": "discrete", "n": 2.0}, "an integer"),
        ({"type": "discrete", "n": 2, "start": 1}, "unknown key 'start'"),
        ({"type": "multi_discrete"}, "nvec must be a list of integers"),
        ({"type": "multi_discrete", "nvec": 3}, "nvec must be a list of integers"),
        ({"type": "multi_discrete", "nvec": []}, "positive elements"),
        ({"type": "multi_discrete", "nvec": [3, 0]}, "positive elements"),
        ({"type": "multi_discrete", "nvec": [3.0]}, "an integer"),
        ({"type": "multi_discrete", "nvec": [1 << 19, 1 << 19, 1]}, "a sum of at most"),
        ({"type": "multi_discrete", "nvec": [1] * (1 << 15)}, "nvec must be a list"),
        ({"type": "multi_binary", "n": 0}, "n"),
        ({"type": "multi_binary", "n": True}, "an integer"),
        ({"type": "tuple"}, "spaces must be a list"),
        ({"type": "tuple", "spaces": []}, "1 to 1024 spaces"),
        ({"type": "tuple", "spaces": {"0": DISCRETE}}, "spaces must be a list"),
        ({"type": "tuple", "spaces": [DISCRETE, {"type": "discrete"}]}, r"\[1\]: .*an integer"),
        ({"type": "tuple", "spaces": [DISCRETE] * 1025}, "at most 1024 spaces, not 1025"),
        ({"type": "tuple", "spaces": [{"type": "discrete", "n": 1 << 20}] * 2}, "flattened"),
        ({"type": "dict", "spaces": {"load": DISCRETE}}, "because their order counts"),
        ({"type": "dict", "spaces": [DISCRETE]}, r"\[key, space\] pair"),
        ({"type": "dict", "spaces": ["ab"]}, r"\[key, space\] pair"),
        ({"type": "dict", "spaces": [[1, DISCRETE]]}, "string as a key"),
        ({"type": "dict", "spaces": [["", DISCRETE]]}, "1 to 200 printable characters"),
        ({"type": "dict", "spaces": [["\ud800", DISCRETE]]}, "1 to 200 printable characters"),
        ({"type": "dict", "spaces": [["a", DISCRETE], ["a", DISCRETE]]}, "keys once each"),
        ({"type": "dict", "spaces": [["a", {"type": "box"}]]}, r"\['a'\]: shape must be a list"),
    ],
)
def test_data_that_describes_no_space_is_refused_by_its_path(data, message):
    """With what is expected there."""
    with pytest.raises(ConfigError, match=message) as caught:
        space_from_json(data, path="observation_space")
    assert str(caught.value).startswith("observation_space")


def test_what_numpy_and_people_write_becomes_plain_numbers():
    """A spec travels as JSON, and must come back equal to what was registered."""
    shape: Any = [np.int64(3), 2]
    box = Box(shape, float(np.float32(0)), np.inf)
    assert box == Box((3, 2), 0.0)
    assert space_from_json(json.loads(json.dumps(space_to_json(box)))) == box
    assert json.dumps(space_to_json(Discrete(shape[0]))) == '{"type": "discrete", "n": 3}'
    assert MultiDiscrete(np.array([3, 2])) == MultiDiscrete((3, 2))  # type: ignore[arg-type]
    assert json.dumps(space_to_json(MultiBinary(shape[0]))) == '{"type": "multi_binary", "n": 3}'


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Box, (3,)),
        (Box, ("3",)),
        (Box, ((2.5,),)),
        (Box, ((3,), float("nan"))),
        (Box, ((3,), np.zeros(2))),
        (Box, ((3,), (0.0, np.nan, 1.0))),
        (Box, ((3,), (0.0, np.inf, 1.0))),
        (Box, ((3,), (0.0, [1.0], 1.0))),
        (Box, ((3,), np.zeros(3), (1.0, 1.0, -1.0))),
        (Box, (((1 << 14) + 1,), np.arange((1 << 14) + 1))),
        (Discrete, (2.5,)),
        (Discrete, (True,)),
        (Discrete, ("3",)),
        (MultiDiscrete, (3,)),
        (MultiDiscrete, ("33",)),
        (MultiDiscrete, ((2.5, 3),)),
        (MultiDiscrete, (np.array([[2, 2], [3, 3]]),)),
        (MultiBinary, (2.5,)),
        (MultiBinary, (1 << 21,)),
        (Dict, (3,)),
        (Dict, ([1, 2],)),
        (Dict, ({},)),
        (Dict, ({"a": 3},)),
        (Dict, ({3: Discrete(3)},)),
        (Tuple, (3,)),
        (Tuple, ((),)),
        (Tuple, ((Discrete(3), None),)),
    ],
    ids=str,
)
def test_a_space_that_cannot_be_is_a_named_error_when_it_is_made(kind: Any, arguments: Any):
    """Later it would be every decision's error, or the registry's."""
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(*arguments)


def test_spaces_lie_in_one_another_eight_deep_and_no_deeper():
    """Whoever writes the ninth, in Python or in JSON; a thousand of them are not followed down."""
    space: Space = Discrete(2)
    for _ in range(8):
        space = Dict({"a": space})
    assert space_from_json(space_to_json(space)) == space
    with pytest.raises(ConfigError, match="at most 8"):
        Tuple((space,))
    data: object = space_to_json(space)
    for _ in range(900):
        data = {"type": "tuple", "spaces": [data]}
        with pytest.raises(ConfigError, match="at most 8"):
            space_from_json(data)


def test_a_mapping_gives_a_dict_its_order():
    """The order is part of the space: weights are trained for it."""
    load, queue = Box((2,)), Discrete(3)
    space = Dict({"queue": queue, "load": load})
    assert space == Dict([("queue", queue), ("load", load)])
    assert space != Dict({"load": load, "queue": queue})


def test_bounds_are_one_number_where_they_are_the_same_for_all():
    """Equal spaces compare equal, however somebody wrote them."""
    assert Box((2, 2), np.zeros((2, 2)), [1, 2, 3, 4]) == Box((2, 2), 0.0, (1.0, 2.0, 3.0, 4.0))  # type: ignore[arg-type]
    assert Box((2,), (-np.inf, -np.inf)) == Box((2,))
    assert Box((2,), (0.0, 1.0), (1.0, 1.0)).low == (0.0, 1.0)
    assert json.dumps(space_to_json(Box((2,), -0.0))) == json.dumps(space_to_json(Box((2,), 0.0)))


def test_without_bounds_a_space_is_otherwise_the_same():
    """In all its depths."""
    bounded = Dict({"a": Tuple((Box((2,), 0, (1, 2)), Discrete(3))), "b": Box((), 0)})
    assert without_bounds(bounded) == Dict({"a": Tuple((Box((2,)), Discrete(3))), "b": Box(())})
