"""Spaces as JSON-ready data, both ways, for configuration files and the client's spec."""

import math
from collections.abc import Callable, Mapping, Sequence
from reprlib import repr as shown
from types import MappingProxyType
from typing import Final

from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces.kinds import (
    MAX_DEPTH,
    MAX_LEAVES,
    MAX_LISTED,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
)

__all__ = ["space_from_json", "space_to_json"]


def space_to_json(space: Space) -> dict[str, object]:
    """`space` as JSON-ready data; `space_from_json` reads it back equal.

    A Dict is a list of pairs, not an object: its order counts, and that of an object's keys is no
    part of JSON.
    """
    match space:
        case Box():
            return _box_to_json(space)
        case Discrete():
            return {"type": "discrete", "n": space.n}
        case MultiDiscrete():
            return {"type": "multi_discrete", "nvec": list(space.nvec)}
        case MultiBinary():
            return {"type": "multi_binary", "n": space.n}
        case Dict():
            pairs = [[key, space_to_json(part)] for key, part in space.spaces]
            return {"type": "dict", "spaces": pairs}
        case Tuple():
            return {"type": "tuple", "spaces": [space_to_json(part) for part in space.spaces]}


def _box_to_json(box: Box) -> dict[str, object]:
    data: dict[str, object] = {"type": "box", "shape": list(box.shape)}
    for name, bound in (("low", box.low), ("high", box.high)):
        if bound is not None:
            data[name] = list(bound) if isinstance(bound, tuple) else bound
    return data


def space_from_json(data: object, *, path: str = "space") -> Space:
    """The space that `data` describes.

    Args:
        data: What `space_to_json` gives.
        path: Of the setting, for messages; parts are named by it: `space['queue'][3]`.

    Raises:
        ConfigError: If it describes none; the message names `path` and the forms.
    """
    return _read(data, path, MAX_DEPTH)


def _read(data: object, path: str, depth: int) -> Space:
    if not isinstance(data, Mapping):
        raise ConfigError(f"expected {_ALL_FORMS}, not {shown(data)}", path=path)
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in _FORMS:
        raise ConfigError(f"unknown type {shown(kind)}; expected {_ALL_FORMS}", path=path)
    if extra := sorted(set(map(str, data)) - _KEYS[kind]):
        raise ConfigError(f"unknown key {extra[0]!r}; expected {_FORMS[kind]}", path=path)
    if kind in _READ_LEAF:
        return _made(lambda: _READ_LEAF[kind](data), path)
    listed = _parts(data, _FORMS[kind], path, depth)
    if kind == "tuple":
        spaces = tuple(_read(each, f"{path}[{i}]", depth - 1) for i, each in enumerate(listed))
        return _made(lambda: Tuple(spaces), path)
    named = [_pair(each, path) for each in listed]
    pairs = [(key, _read(each, f"{path}[{key!r}]", depth - 1)) for key, each in named]
    return _made(lambda: Dict(pairs), path)


def _made(make: Callable[[], Space], path: str) -> Space:
    """What `make` gives; its errors, which know no path, get this one."""
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(str(error), path=path) from None


def _parts(data: Mapping[str, object], form: str, path: str, depth: int) -> Sequence[object]:
    """The spaces of a Dict or Tuple, before anything is made of them."""
    spaces = data.get("spaces")
    if not isinstance(spaces, Sequence) or isinstance(spaces, str):
        raise ConfigError(
            f"spaces must be a list, because their order counts, not {shown(spaces)}; expected "
            f"{form}",
            path=path,
        )
    # Checked on the way down: what is nested without end must not be followed to it.
    if depth == 0:
        raise ConfigError(f"at most {MAX_DEPTH} dict and tuple may lie in one another", path=path)
    if len(spaces) > MAX_LEAVES:
        raise ConfigError(f"at most {MAX_LEAVES} spaces, not {len(spaces)}", path=path)
    return spaces


def _pair(value: object, path: str) -> tuple[str, object]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:  # noqa: PLR2004
        raise ConfigError(f"expected a [key, space] pair, not {shown(value)}", path=path)
    key, space = value
    if not isinstance(key, str):
        raise ConfigError(f"expected a string as a key, not {shown(key)}", path=path)
    return key, space


def _box(data: Mapping[str, object]) -> Box:
    shape = _integers(data.get("shape"), "shape")
    return Box(shape, _bound(data.get("low")), _bound(data.get("high")))


def _integers(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MAX_LISTED:
        raise ConfigError(f"{what} must be a list of integers, not {shown(value)}")
    return tuple(_integer(each) for each in value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"expected an integer, not {shown(value)}")
    return value


def _bound(value: object) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= MAX_LISTED:
        return tuple(_number(each) for each in value)
    return _number(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise ConfigError(
            "a bound must be a finite number, a list with one for each element, or left out, not "
            f"{shown(value)}"
        )
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


_FORMS: Final = MappingProxyType(
    {
        "box": '{"type": "box", "shape": [8]}',
        "discrete": '{"type": "discrete", "n": 4}',
        "multi_discrete": '{"type": "multi_discrete", "nvec": [3, 2]}',
        "multi_binary": '{"type": "multi_binary", "n": 8}',
        "dict": '{"type": "dict", "spaces": [["load", {"type": "box", "shape": [8]}]]}',
        "tuple": '{"type": "tuple", "spaces": [{"type": "discrete", "n": 4}]}',
    }
)
_ALL_FORMS: Final = " or ".join(_FORMS.values())
_KEYS: Final = MappingProxyType(
    {
        "box": {"type", "shape", "low", "high"},
        "discrete": {"type", "n"},
        "multi_discrete": {"type", "nvec"},
        "multi_binary": {"type", "n"},
        "dict": {"type", "spaces"},
        "tuple": {"type", "spaces"},
    }
)
_READ_LEAF: Final[Mapping[str, Callable[[Mapping[str, object]], Space]]] = MappingProxyType(
    {
        "box": _box,
        "discrete": lambda data: Discrete(_integer(data.get("n"))),
        "multi_discrete": lambda data: MultiDiscrete(_integers(data.get("nvec"), "nvec")),
        "multi_binary": lambda data: MultiBinary(_integer(data.get("n"))),
    }
)
