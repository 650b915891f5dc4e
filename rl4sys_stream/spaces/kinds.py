"""The six kinds of spaces: frozen, hashable, and checked when they are made."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, Final, overload

import numpy as np

from rl4sys_stream.errors import ConfigError

__all__ = [
    "MAX_DEPTH",
    "MAX_LEAVES",
    "MAX_LISTED",
    "Box",
    "Dict",
    "Discrete",
    "MultiBinary",
    "MultiDiscrete",
    "Space",
    "Tuple",
    "flat_dim",
    "parts",
    "without_bounds",
]

MAX_FLAT_DIM: Final = 1 << 20
"""Largest flattened observation, in numbers (4 MiB as float32)."""
MAX_AXES: Final = 32
"""As many as every release of numpy can hold."""
MAX_LISTED: Final = 1 << 14
"""Most numbers that a space may list: bounds by element, or the choices of a MultiDiscrete."""
MAX_DEPTH: Final = 8
"""Most Dict and Tuple around one another."""
MAX_LEAVES: Final = 1024
"""Most spaces of the other kinds in a Dict or Tuple, those further down included."""
MAX_KEY_CHARS: Final = 200


def _whole_number(value: object, what: str) -> int:
    """`value` as a plain int: numpy's integers do not encode as JSON.

    Raises:
        ConfigError: If it is none.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # that is what is being found out
    except TypeError:
        raise ConfigError(f"{what} must be an integer, not {shown(value)}") from None


def _whole_numbers(value: object, what: str, each: str) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{what}, not {shown(value)}")
    return tuple(_whole_number(one, each) for one in value)


def _bound(value: object, shape: tuple[int, ...]) -> float | tuple[float, ...] | None:
    """One side of a Box's bounds; infinity is the same as none, for JSON has no word for it."""
    if value is None:
        return None
    try:
        bounds = np.asarray(value, dtype=np.float64) + 0.0  # no -0.0: equal specs, equal bytes
    except (OverflowError, TypeError, ValueError):
        bounds = np.array(np.nan)
    if np.isnan(bounds).any() or bounds.shape not in {(), shape, (math.prod(shape),)}:
        raise ConfigError(
            f"a bound of a Box is one number, one for each of its {math.prod(shape)} elements, or "
            f"None, not {shown(value)}"
        )
    if np.isinf(bounds).all():
        return None
    if np.isinf(bounds).any():
        raise ConfigError(
            "a bound of a Box is finite for all elements or left out, not infinite for some"
        )
    elements: list[float] = bounds.reshape(-1).tolist()
    if (bounds == elements[0]).all():
        return elements[0]
    if len(elements) > MAX_LISTED:
        raise ConfigError(
            f"a Box may list at most {MAX_LISTED} bounds by element, not {len(elements)}; give "
            "one number for all, or leave them out"
        )
    return tuple(elements)


@dataclass(frozen=True, slots=True)
class Box:
    """Real arrays of one shape.

    Attributes:
        shape: Axes of the array; () is a scalar.
        low: Lower bound: one number for all elements, a tuple with one for each in row-major
            order, or None where not all of them are finite.
        high: Upper bound, likewise.

    The bounds are recorded for people and for continuous actions; observations outside of them
    are not refused, because systems overshoot their own nominal ranges.
    """

    shape: tuple[int, ...]
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Make plain numbers of what numpy and people write, and refuse what no array can have."""
        shape = _whole_numbers(
            self.shape,
            "the shape of a Box is a tuple of integers, such as (8,)",
            "each axis of a Box",
        )
        if (
            len(shape) > MAX_AXES
            or any(not 1 <= axis <= MAX_FLAT_DIM for axis in shape)
            or math.prod(shape) > MAX_FLAT_DIM
        ):
            raise ConfigError(
                f"a Box needs positive axes, at most {MAX_AXES} of them, and at most "
                f"{MAX_FLAT_DIM} elements, not {shape}"
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "low", _bound(self.low, shape))
        object.__setattr__(self, "high", _bound(self.high, shape))
        if self.low is None or self.high is None:
            return
        low, high = np.broadcast_arrays(self.low, self.high)
        # Other people's spaces have constant elements here and there; all of them are a slip.
        if (low > high).any() or (low == high).all():
            raise ConfigError(
                f"a Box needs low < high, not {shown(self.low)} and {shown(self.high)}"
            )


def _check_count(n: int, kind: str) -> None:
    if not 1 <= n <= MAX_FLAT_DIM:
        raise ConfigError(f"a {kind} space needs 1 <= n <= {MAX_FLAT_DIM}, not {n}")


@dataclass(frozen=True, slots=True)
class Discrete:
    """The integers 0 … n − 1."""

    n: int

    def __post_init__(self) -> None:
        """Make a plain integer of `n`, and refuse empty and absurd ranges."""
        object.__setattr__(self, "n", _whole_number(self.n, "the n of a Discrete space"))
        _check_count(self.n, "Discrete")


@dataclass(frozen=True, slots=True)
class MultiDiscrete:
    """Several integers at once: element i is one of 0 … nvec[i] − 1."""

    nvec: tuple[int, ...]

    def __post_init__(self) -> None:
        """Make plain integers of `nvec`, and refuse empty and absurd ranges."""
        nvec = _whole_numbers(
            self.nvec,
            "the nvec of a MultiDiscrete space is a tuple of integers, such as (3, 2)",
            "each element of a MultiDiscrete space's nvec",
        )
        if (
            not 1 <= len(nvec) <= MAX_LISTED
            or any(not 1 <= n <= MAX_FLAT_DIM for n in nvec)
            or sum(nvec) > MAX_FLAT_DIM
        ):
            raise ConfigError(
                f"a MultiDiscrete space needs 1 to {MAX_LISTED} positive elements in nvec, with a "
                f"sum of at most {MAX_FLAT_DIM}, not {shown(nvec)}"
            )
        object.__setattr__(self, "nvec", nvec)


@dataclass(frozen=True, slots=True)
class MultiBinary:
    """`n` elements, each 0 or 1."""

    n: int

    def __post_init__(self) -> None:
        """Make a plain integer of `n`, and refuse empty and absurd ranges."""
        object.__setattr__(self, "n", _whole_number(self.n, "the n of a MultiBinary space"))
        _check_count(self.n, "MultiBinary")


@dataclass(frozen=True, slots=True, init=False)
class Dict:
    """Named spaces, in an order that belongs to it: flattened, they follow one another.

    Attributes:
        spaces: (key, space) pairs.
    """

    spaces: "tuple[tuple[str, Space], ...]"

    # Two forms, for with a union of them a type checker takes a literal's values for objects.
    @overload
    def __init__(self, spaces: "Mapping[str, Space]") -> None: ...
    @overload
    def __init__(self, spaces: "Iterable[tuple[str, Space]]") -> None: ...
    def __init__(self, spaces: object) -> None:
        """Take a mapping's order, or that of pairs.

        Raises:
            ConfigError: If there is nothing in it or too much, or a key is no name or not unique.
        """
        object.__setattr__(self, "spaces", _pairs(spaces))
        _check_nested(self)


@dataclass(frozen=True, slots=True)
class Tuple:
    """Several spaces, which follow one another.

    Attributes:
        spaces: The spaces; any iterable of them will do.
    """

    spaces: "tuple[Space, ...]"

    def __post_init__(self) -> None:
        """Make a tuple of `spaces`, and refuse nothing in it, and too much."""
        if not isinstance(self.spaces, Iterable):
            raise ConfigError(f"a Tuple is made of several spaces, not of {shown(self.spaces)}")
        object.__setattr__(self, "spaces", tuple(self.spaces))
        _check_nested(self)


Space = Box | Discrete | MultiDiscrete | MultiBinary | Dict | Tuple


def _pairs(spaces: object) -> "tuple[tuple[str, Space], ...]":
    items: Any = spaces.items() if isinstance(spaces, Mapping) else spaces
    try:
        pairs = tuple((key, space) for key, space in items)
    except (TypeError, ValueError):
        raise ConfigError(
            f"a Dict is made of (key, space) pairs or a mapping, not of {shown(spaces)}"
        ) from None
    seen: set[str] = set()
    for key, _ in pairs:
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
            raise ConfigError(
                f"a key of a Dict is a string of 1 to {MAX_KEY_CHARS} printable characters, not "
                f"{shown(key)}"
            )
        if key in seen:
            raise ConfigError(f"a Dict needs its keys once each, not {key!r} again")
        seen.add(key)
    return pairs


def parts(space: Space) -> tuple[tuple[str | int, Space], ...]:
    """What a Dict or Tuple is made of, each with its key or index; () for the other kinds."""
    if isinstance(space, Dict):
        return space.spaces
    return tuple(enumerate(space.spaces)) if isinstance(space, Tuple) else ()


def _check_nested(space: Dict | Tuple) -> None:
    kind = type(space).__name__
    for key, part in parts(space):
        if not isinstance(part, Space):
            raise ConfigError(
                f"{key!r} of a {kind} must be a space of rl4sys_stream.spaces, not {shown(part)}; "
                "as_space() converts Gymnasium's"
            )
    leaves = sum(1 for _ in _leaves(space))
    if not 1 <= leaves <= MAX_LEAVES:
        raise ConfigError(f"a {kind} needs 1 to {MAX_LEAVES} spaces in it, not {leaves}")
    if _depth(space) > MAX_DEPTH:
        raise ConfigError(f"at most {MAX_DEPTH} Dict and Tuple may lie in one another")
    if flat_dim(space) > MAX_FLAT_DIM:
        raise ConfigError(
            f"a {kind} needs at most {MAX_FLAT_DIM} elements when flattened, not {flat_dim(space)}"
        )


def _leaves(space: Space) -> Iterator[Space]:
    if not isinstance(space, Dict | Tuple):
        yield space
    for _, part in parts(space):
        yield from _leaves(part)


def _depth(space: Space) -> int:
    if not isinstance(space, Dict | Tuple):
        return 0
    return 1 + max(_depth(part) for _, part in parts(space))


def flat_dim(space: Space) -> int:
    """Length of a flattened element of `space`."""
    if isinstance(space, Box):
        return math.prod(space.shape)
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if isinstance(space, Dict | Tuple):
        return sum(flat_dim(part) for _, part in parts(space))
    return space.n


def without_bounds(space: Space) -> Space:
    """`space`, its Boxes without bounds: all that counts where a space is for observations."""
    if isinstance(space, Box):
        return Box(space.shape)
    if isinstance(space, Dict):
        return Dict((key, without_bounds(part)) for key, part in space.spaces)
    if isinstance(space, Tuple):
        return Tuple(tuple(without_bounds(part) for part in space.spaces))
    return space
