"""Observation and action spaces as plain data, so that an agent needs no Gymnasium.

A space travels as JSON in the client's spec. Gymnasium's own spaces are accepted by their shape
(attributes, not imports). Observations are flattened to `float32 [flat_dim]` by the agent; a
Discrete observation becomes one-hot.
"""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.errors import ConfigError, ObservationError

__all__ = [
    "Box",
    "Discrete",
    "Space",
    "as_space",
    "flat_dim",
    "flatten",
    "space_from_json",
    "space_to_json",
]

MAX_FLAT_DIM: Final = 1 << 20
"""Largest flattened observation, in numbers (4 MiB as float32)."""
MAX_AXES: Final = 32
"""As many as every release of numpy can hold."""


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
        raise ConfigError(f"{what} must be an integer, not {value!r}") from None


def _axes(shape: object) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise ConfigError(f"the shape of a Box is a tuple of integers, such as (8,), not {shape!r}")
    return tuple(_whole_number(axis, "each axis of a Box") for axis in shape)


def _finite_bound(value: object) -> float | None:
    """One bound; infinity is the same as none, for JSON has no word for it."""
    if value is None:
        return None
    try:
        bound = float(value)  # type: ignore[arg-type]  # that is what is being found out
    except (OverflowError, TypeError, ValueError):
        bound = math.nan
    if math.isnan(bound):
        raise ConfigError(
            f"a bound of a Box is one number for all elements, or None where they differ, "
            f"not {value!r}"
        )
    return bound if math.isfinite(bound) else None


@dataclass(frozen=True, slots=True)
class Box:
    """Real vectors of one shape.

    Attributes:
        shape: Axes of the array; () is a scalar.
        low: Lower bound of every element, or None where there is no common finite one.
        high: Upper bound of every element, or None.

    The bounds are recorded for people and for continuous actions; observations outside of them
    are not refused, because systems overshoot their own nominal ranges.
    """

    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Make plain numbers of what numpy and people write, and refuse what no array can have."""
        object.__setattr__(self, "shape", _axes(self.shape))
        object.__setattr__(self, "low", _finite_bound(self.low))
        object.__setattr__(self, "high", _finite_bound(self.high))
        if (
            len(self.shape) > MAX_AXES
            or any(not 1 <= axis <= MAX_FLAT_DIM for axis in self.shape)
            or math.prod(self.shape) > MAX_FLAT_DIM
        ):
            raise ConfigError(
                f"a Box needs positive axes, at most {MAX_AXES} of them, and at most "
                f"{MAX_FLAT_DIM} elements, not {self.shape}"
            )
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"a Box needs low < high, not {self.low} and {self.high}")


@dataclass(frozen=True, slots=True)
class Discrete:
    """The integers 0 … n − 1."""

    n: int

    def __post_init__(self) -> None:
        """Make a plain integer of `n`, and refuse empty and absurd ranges."""
        object.__setattr__(self, "n", _whole_number(self.n, "the n of a Discrete space"))
        if not 1 <= self.n <= MAX_FLAT_DIM:
            raise ConfigError(f"a Discrete space needs 1 <= n <= {MAX_FLAT_DIM}, not {self.n}")


Space = Box | Discrete


def space_to_json(space: Space) -> dict[str, object]:
    """`space` as JSON-ready data; `space_from_json` reads it back equal."""
    if isinstance(space, Discrete):
        return {"type": "discrete", "n": space.n}
    data: dict[str, object] = {"type": "box", "shape": list(space.shape)}
    if space.low is not None:
        data["low"] = space.low
    if space.high is not None:
        data["high"] = space.high
    return data


def space_from_json(data: object, *, path: str = "space") -> Space:
    """The space that `data` describes.

    Raises:
        ConfigError: If it describes none; the message names `path` and the two forms.
    """
    forms = '{"type": "box", "shape": [8]} or {"type": "discrete", "n": 4}'
    if not isinstance(data, Mapping):
        raise ConfigError(f"expected {forms}, not {data!r}", path=path)
    kind = data.get("type")
    allowed = {"box": {"type", "shape", "low", "high"}, "discrete": {"type", "n"}}
    if not isinstance(kind, str) or kind not in allowed:
        raise ConfigError(f"unknown type {kind!r}; expected {forms}", path=path)
    if extra := sorted(set(map(str, data)) - allowed[kind]):
        raise ConfigError(f"unknown key {extra[0]!r}; expected {forms}", path=path)
    try:
        if kind == "discrete":
            return Discrete(_integer(data.get("n")))
        shape = data.get("shape")
        if not isinstance(shape, Sequence) or isinstance(shape, str):
            raise ConfigError(f"shape must be a list of integers, not {shape!r}")
        axes = tuple(_integer(axis) for axis in shape)
        return Box(axes, _bound(data.get("low")), _bound(data.get("high")))
    except ConfigError as error:
        raise ConfigError(str(error), path=path) from None


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"expected an integer, not {value!r}")
    return value


def _bound(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise ConfigError(f"a bound must be a finite number or left out, not {value!r}")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def as_space(value: object, *, path: str = "space") -> Space:
    """`value` as a space: one of ours, its JSON form, or a Gymnasium Box or Discrete.

    Raises:
        ConfigError: If it is none of these, or a Gymnasium space that is not supported yet.
    """
    if isinstance(value, Box | Discrete):
        return value
    kind = type(value).__name__
    # Gymnasium's Dict is a Mapping, too.
    if isinstance(value, Mapping) and kind != "Dict":
        return space_from_json(value, path=path)
    if kind == "Discrete" and hasattr(value, "n"):
        if int(getattr(value, "start", 0)) != 0:
            raise ConfigError("a Discrete space must start at 0; shift it yourself", path=path)
        return Discrete(int(value.n))
    if kind == "Box" and hasattr(value, "shape"):
        return Box(
            tuple(int(axis) for axis in value.shape),
            _common(getattr(value, "low", None)),
            _common(getattr(value, "high", None)),
        )
    raise ConfigError(f"{kind} is no supported space; use Box or Discrete", path=path)


def _common(bounds: object) -> float | None:
    """The bound that all elements share, None if they differ or it is not finite."""
    array = np.asarray(bounds, dtype=np.float64) if bounds is not None else np.empty(0)
    if array.size and np.isfinite(array).all() and (array == array.flat[0]).all():
        return float(array.flat[0])
    return None


def flat_dim(space: Space) -> int:
    """Length of a flattened element of `space`."""
    return space.n if isinstance(space, Discrete) else math.prod(space.shape)


@np.errstate(over="ignore", invalid="ignore")
def flatten(space: Space, observation: ArrayLike) -> NDArray[np.float32]:
    """A fresh `float32 [flat_dim]` copy of `observation`; one-hot for a Discrete space.

    Args:
        space: What the client's spec says an observation is.
        observation: Anything numpy can read (array, list, torch tensor on the CPU, …).

    Raises:
        ObservationError: If the shape differs, it is not numeric, or an element is not finite.
    """
    if isinstance(space, Discrete):
        return _one_hot(space.n, observation)
    try:
        # A copy: the application may write its next observation into the same buffer.
        array: NDArray[np.float32] = np.array(observation, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ObservationError(f"the observation is not numeric: {error}") from None
    if array.shape != space.shape:
        raise ObservationError(
            f"the observation has shape {array.shape}, the client's observation_space says "
            f"{space.shape}"
        )
    array = array.reshape(-1)
    # The dot product is finite only if every element is: four times faster than isfinite().all().
    # It may overflow for huge but finite elements, so a bad one is looked at again.
    if not math.isfinite(array.dot(array)) and not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ObservationError(
            f"element {index} of the observation is {array[index]}; an observation must be finite"
        )
    return array


def _one_hot(n: int, observation: ArrayLike) -> NDArray[np.float32]:
    try:
        value = np.asarray(observation).item()
        index = -1 if isinstance(value, bool) or value != int(value) else int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ObservationError(
            f"the observation is {observation!r}; expected an integer in 0…{n - 1} ({error})"
        ) from None
    if not 0 <= index < n:
        raise ObservationError(f"the observation is {value!r}; expected an integer in 0…{n - 1}")
    array = np.zeros(n, np.float32)
    array[index] = 1.0
    return array
