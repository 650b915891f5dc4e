"""What applications call a space, made one of ours; Gymnasium's are told by name and attributes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces.json_form import space_from_json
from rl4sys_stream.spaces.kinds import (
    MAX_LISTED,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
)

__all__ = ["as_space"]


def as_space(value: object, *, path: str = "space") -> Space:
    """`value` as a space: one of ours, its JSON form, or Gymnasium's of the same six kinds.

    Of a Gymnasium Box, bounds are kept that are finite for all elements. A MultiDiscrete or
    MultiBinary of several axes becomes one of a single axis, in row-major order.

    Args:
        value: The space.
        path: Of the setting, for messages; parts are named by it: `space['queue'][3]`.

    Raises:
        ConfigError: If it is none of these, or has no counterpart: numbers that start elsewhere
            than at 0, or more parts than a space may have.
    """
    if isinstance(value, Space):
        return value
    kind = type(value).__name__
    # Gymnasium's Dict is a Mapping, too.
    if isinstance(value, Mapping) and kind != "Dict":
        return space_from_json(value, path=path)
    if kind not in _KINDS or not hasattr(value, _KINDS[kind]):
        raise ConfigError(
            f"{kind} is no supported space; use Box, Discrete, MultiDiscrete, MultiBinary, Dict or "
            "Tuple",
            path=path,
        )
    if kind in {"Dict", "Tuple"}:
        return _nested(value, path)
    try:
        return _LEAVES[kind](value)
    except ConfigError as error:
        raise ConfigError(str(error), path=path) from None


def _nested(value: Any, path: str) -> Space:  # noqa: ANN401 - told by its looks
    if isinstance(value.spaces, Mapping):
        items = [
            (key, as_space(part, path=f"{path}[{key!r}]")) for key, part in value.spaces.items()
        ]
    else:
        items = [(i, as_space(part, path=f"{path}[{i}]")) for i, part in enumerate(value.spaces)]
    try:
        if type(value).__name__ == "Dict":
            return Dict(items)
        return Tuple(tuple(part for _, part in items))
    except ConfigError as error:
        raise ConfigError(str(error), path=path) from None


def _box(value: Any) -> Box:  # noqa: ANN401
    shape = tuple(int(axis) for axis in value.shape)
    return Box(shape, _bounds(value, "low"), _bounds(value, "high"))  # type: ignore[arg-type]


def _bounds(value: object, name: str) -> NDArray[np.float64] | None:
    """Those of all elements, unless a Box of ours cannot hold them."""
    bounds = getattr(value, name, None)
    if bounds is None:
        return None
    array = np.asarray(bounds, dtype=np.float64)
    listed = array.size <= MAX_LISTED or bool((array == array.flat[0]).all())
    return array if listed and np.isfinite(array).all() else None


def _discrete(value: Any) -> Discrete:  # noqa: ANN401
    if int(getattr(value, "start", 0)) != 0:
        raise ConfigError("a Discrete space must start at 0; shift it yourself")
    return Discrete(int(value.n))


def _multi_discrete(value: Any) -> MultiDiscrete:  # noqa: ANN401
    if np.any(getattr(value, "start", 0)):
        raise ConfigError("a MultiDiscrete space must start at 0; shift it yourself")
    return MultiDiscrete(tuple(np.asarray(value.nvec).reshape(-1).tolist()))


def _multi_binary(value: Any) -> MultiBinary:  # noqa: ANN401
    # Gymnasium's n is a tuple or an array where there are several axes.
    return MultiBinary(int(np.prod(value.n)))


_LEAVES: Final[Mapping[str, Callable[[object], Space]]] = MappingProxyType(
    {
        "Box": _box,
        "Discrete": _discrete,
        "MultiBinary": _multi_binary,
        "MultiDiscrete": _multi_discrete,
    }
)
_KINDS: Final = MappingProxyType(
    {
        "Box": "shape",
        "Dict": "spaces",
        "Discrete": "n",
        "MultiBinary": "n",
        "MultiDiscrete": "nvec",
        "Tuple": "spaces",
    }
)
"""Names of Gymnasium's classes, each with the attribute by which it is told from a namesake."""
