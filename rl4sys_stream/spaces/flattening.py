"""Observations of any space into one `float32` vector: the first thing that a decision does.

`make_flattener` looks at the space once and leaves for each observation only what depends on it.
The parts of a Dict or Tuple write into one vector, which is checked as a whole.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import accumulate
from reprlib import repr as shown
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.errors import ObservationError
from rl4sys_stream.spaces.kinds import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
    flat_dim,
    parts,
)

__all__ = ["Flattener", "Observation", "flatten", "make_flattener"]

Observation = ArrayLike | Mapping[str, object] | tuple[object, ...]
"""What applications give: an array-like, or a mapping or tuple of such, nested as the space is."""

Flattener = Callable[[Observation], NDArray[np.float32]]
"""Makes a fresh `float32 [flat_dim]` of an observation; raises as `flatten` does."""

_Write = Callable[[NDArray[np.float32], Any], None]
"""Writes one part of an observation into its place of the whole vector, which holds zeros."""

_ROOT: Final = "observation"
_BITS: Final = frozenset({0, 1})


def flatten(space: Space, observation: Observation) -> NDArray[np.float32]:
    """A fresh `float32 [flat_dim]` copy of `observation`, in the order of Gymnasium's `flatten`.

    A Box in row-major order; Discrete and MultiDiscrete one-hot, the latter's elements one after
    another; MultiBinary as 0 and 1; Dict and Tuple one part after another, in the space's order.
    Where decisions are made, hold `make_flattener(space)` instead.

    Args:
        space: What the client's spec says an observation is.
        observation: Anything numpy can read (array, list, torch tensor on the CPU, …), for a Dict
            a mapping and for a Tuple a tuple or list of such.

    Raises:
        ObservationError: If the shape or a key differs, it is not numeric, or an element is not
            finite or not one of the space's. The message names the part:
            `observation['queue'][3]`.
    """
    if type(space) is Box:
        return _flatten_box(space.shape, observation)
    return _remembered(space)(observation)


def make_flattener(space: Space) -> Flattener:
    """`flatten` for one space, with everything prepared that does not depend on the observation.

    Args:
        space: What the client's spec says an observation is.
    """
    if isinstance(space, Box):
        return partial(_flatten_box, space.shape)
    dim = flat_dim(space)
    write = _writer(space, 0, _ROOT)

    def flatten_finite(observation: Observation) -> NDArray[np.float32]:
        flat = np.zeros(dim, np.float32)
        write(flat, observation)
        return flat

    if not any(isinstance(leaf, Box) for _, leaf in _leaves(space, _ROOT)):
        return flatten_finite

    @np.errstate(over="ignore", invalid="ignore")
    def flatten_nested(observation: Observation) -> NDArray[np.float32]:
        flat = flatten_finite(observation)
        if not _is_finite(flat):
            raise _not_finite(space, flat)
        return flat

    return flatten_nested


_remembered = lru_cache(maxsize=64)(make_flattener)


@np.errstate(over="ignore", invalid="ignore")
def _flatten_box(shape: tuple[int, ...], observation: Observation) -> NDArray[np.float32]:
    try:
        # A copy: the application may write its next observation into the same buffer.
        array: NDArray[np.float32] = np.array(observation, dtype=np.float32)
    except (OverflowError, TypeError, ValueError) as error:
        raise _not_numeric(_ROOT, error) from None
    if array.shape != shape:
        raise _wrong_shape(_ROOT, array.shape, shape)
    array = array.reshape(-1)
    if not _is_finite(array):
        raise _not_finite(Box(shape), array)
    return array


def _is_finite(flat: NDArray[np.float32]) -> bool:
    # The dot product is finite only if every element is: four times faster than isfinite().all().
    # It may overflow for huge but finite elements, so a bad one is looked at again.
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())


def _writer(space: Space, start: int, name: str) -> _Write:
    """What writes an element of `space` into a vector, from index `start` on.

    Args:
        space: A part of the observation space.
        start: Where its first number goes.
        name: Of this part, for messages: `observation['queue'][3]`.
    """
    match space:
        case Box():
            return _box_writer(space.shape, start, name)
        case Discrete():
            return _state_writer(space.n, start, name)
        case MultiDiscrete():
            return _states_writer(space.nvec, start, name)
        case MultiBinary():
            return _bits_writer(space.n, start, name)
        case Dict():
            return _mapping_writer(space, start, name)
        case Tuple():
            return _sequence_writer(space, start, name)


def _box_writer(shape: tuple[int, ...], start: int, name: str) -> _Write:
    place = slice(start, start + math.prod(shape))

    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        try:
            array = np.asarray(value, dtype=np.float32)
        except (OverflowError, TypeError, ValueError) as error:
            raise _not_numeric(name, error) from None
        if array.shape != shape:
            raise _wrong_shape(name, array.shape, shape)
        flat[place] = array.reshape(-1)

    return write if shape else _scalar_writer(start, write)


def _scalar_writer(start: int, write_array: _Write) -> _Write:
    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        if value.__class__ is float:  # eight times faster than by way of an array
            flat[start] = value
        else:
            write_array(flat, value)

    return write


def _state_writer(n: int, start: int, name: str) -> _Write:
    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        if value.__class__ is not int:
            value = _state(value, n, name)
        if not 0 <= value < n:
            raise _out_of_range(name, value, n)
        flat[start + value] = 1.0

    return write


def _state(value: object, n: int, name: str) -> int:
    try:
        item = np.asarray(value).item()
        if isinstance(item, bool) or item != int(item):
            raise _out_of_range(name, item, n)
        return int(item)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ObservationError):
            raise
        raise _out_of_range(name, value, n) from None


def _states_writer(nvec: tuple[int, ...], start: int, name: str) -> _Write:
    starts = [start + before for before in accumulate((0, *nvec[:-1]))]
    places = tuple(zip(starts, nvec, strict=True))

    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        array = _flat_array(value, len(nvec), name, kinds="iuf")
        states = array.tolist()
        if array.dtype.kind == "f":
            states = [_state(one, nvec[i], f"{name}[{i}]") for i, one in enumerate(states)]
        for (first, n), state in zip(places, states, strict=True):
            if not 0 <= state < n:
                i = starts.index(first)
                raise _out_of_range(f"{name}[{i}]", state, n)
            flat[first + state] = 1.0

    return write


def _bits_writer(n: int, start: int, name: str) -> _Write:
    place = slice(start, start + n)

    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        array = _flat_array(value, n, name, kinds="iufb")
        bits = array.tolist()
        if not _BITS.issuperset(bits):
            i = next(i for i, bit in enumerate(bits) if bit not in _BITS)
            raise _out_of_range(f"{name}[{i}]", bits[i], 2)
        flat[place] = array

    return write


def _flat_array(value: object, count: int, name: str, *, kinds: str) -> NDArray[Any]:
    """`value` as an array `[count]` of a dtype of one of numpy's `kinds`."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise _not_numeric(name, error) from None
    if array.size != count:
        raise _wrong_shape(name, array.shape, (count,))
    if array.dtype.kind not in kinds:
        raise _not_numeric(name, f"expected integers, not {shown(value)}")
    return array.reshape(-1)


def _mapping_writer(space: Dict, start: int, name: str) -> _Write:
    writers: list[tuple[str, _Write]] = []
    for key, part in space.spaces:
        writers.append((key, _writer(part, start, f"{name}[{key!r}]")))
        start += flat_dim(part)
    keys = frozenset(key for key, _ in space.spaces)

    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        if value.__class__ is not dict and not isinstance(value, Mapping):
            raise ObservationError(
                f"{_called(name)} is {shown(value)}; expected a mapping with the keys "
                f"{shown(sorted(keys))}"
            )
        if value.keys() != keys:
            raise _wrong_keys(name, value, keys)
        for key, write_part in writers:
            write_part(flat, value[key])

    return write


def _sequence_writer(space: Tuple, start: int, name: str) -> _Write:
    writers: list[_Write] = []
    for i, part in enumerate(space.spaces):
        writers.append(_writer(part, start, f"{name}[{i}]"))
        start += flat_dim(part)

    def write(flat: NDArray[np.float32], value: Any) -> None:  # noqa: ANN401
        if not isinstance(value, tuple | list) or len(value) != len(writers):
            raise ObservationError(
                f"{_called(name)} is {shown(value)}; expected a tuple of {len(writers)}"
            )
        for write_part, part in zip(writers, value, strict=True):
            write_part(flat, part)

    return write


def _leaves(space: Space, name: str) -> Iterator[tuple[str, Space]]:
    """The spaces in `space` that hold no others, in its order, each with its name."""
    if not isinstance(space, Dict | Tuple):
        yield name, space
    for key, part in parts(space):
        yield from _leaves(part, f"{name}[{key!r}]")


def _called(name: str) -> str:
    return f"the {_ROOT}" if name == _ROOT else name


def _not_numeric(name: str, reason: object) -> ObservationError:
    return ObservationError(f"{_called(name)} is not numeric: {reason}")


def _wrong_shape(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> ObservationError:
    return ObservationError(
        f"{_called(name)} has shape {shape}, the client's observation_space says {wanted}"
    )


def _out_of_range(name: str, value: object, n: int) -> ObservationError:
    return ObservationError(f"{_called(name)} is {shown(value)}; expected an integer in 0…{n - 1}")


def _wrong_keys(
    name: str, value: Mapping[object, object], keys: frozenset[str]
) -> ObservationError:
    if missing := sorted(key for key in keys if key not in value):
        return ObservationError(
            f"{_called(name)} lacks {missing[0]!r}, which the client's observation_space says"
        )
    extra = next(key for key in value if key not in keys)
    return ObservationError(
        f"{_called(name)} has {shown(extra)}, of which the client's observation_space says nothing"
    )


def _not_finite(space: Space, flat: NDArray[np.float32]) -> ObservationError:
    index = first = int(np.flatnonzero(~np.isfinite(flat))[0])
    for name, leaf in _leaves(space, _ROOT):
        if index < flat_dim(leaf):
            return ObservationError(
                f"element {index} of {_called(name)} is {flat[first]}; an observation must be "
                "finite"
            )
        index -= flat_dim(leaf)
    raise IndexError(first)
