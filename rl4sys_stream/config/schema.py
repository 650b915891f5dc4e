"""From plain JSON data to typed settings, with errors that a person can act on.

msgspec checks types and ranges; this module turns what it finds into `ConfigError`s that name the
dotted path, what is allowed there, what was found, and the nearest key to an unknown one.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
from msgspec import inspect

from rl4sys_stream.errors import ConfigError

__all__ = [
    "MAX_DEPTH",
    "Location",
    "allowed_values",
    "check_keys",
    "depth_above",
    "different_paths",
    "dotted",
    "message_of",
    "nearest",
    "read_struct",
    "shown",
]

S = TypeVar("S", bound=msgspec.Struct)

MAX_DEPTH: Final = 32
"""Deepest nesting of lists and objects; settings need four."""

_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_SHOWN_CHARACTERS: Final = 60
_PLAIN_WORDS: Final[Mapping[type[inspect.Type], str]] = MappingProxyType(
    {
        inspect.NoneType: "null",
        inspect.BoolType: "true or false",
        inspect.StrType: "a string",
    }
)


@dataclass(frozen=True, slots=True)
class Location:
    """Where the user wrote a setting.

    Attributes:
        path: Dotted path there, which an alias or another form may make differ from ours.
        source: "" if that is plain, else what to look into: a file, an environment variable.
    """

    path: str
    source: str = ""

    def error(self, message: str) -> ConfigError:
        """`message` about this place."""
        return ConfigError(f"{message} [{self.source}]" if self.source else message, path=self.path)


def message_of(error: ConfigError) -> str:
    """The message of `error` without the path in front of it."""
    return str(error).removeprefix(f"{error.path}: ")


def shown(value: object) -> str:
    """`value` as an error message shows it: JSON's words for constants, long values cut."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def nearest(key: str, allowed: Iterable[str]) -> str | None:
    """The element of `allowed` most like `key`, whatever its case; None if none is alike."""
    folded = {name.casefold(): name for name in allowed}
    found = difflib.get_close_matches(key.casefold(), folded, n=1)
    return folded[found[0]] if found else None


def check_keys(
    keys: Iterable[object],
    allowed: Sequence[str],
    *,
    path: str = "",
    locate: Callable[[str], Location] = Location,
) -> None:
    """Refuse the first of `keys` that is not in `allowed`.

    Raises:
        ConfigError: With its dotted path, the nearest allowed key, or else all of them.
    """
    for key in keys:
        if key in allowed:
            continue
        guess = nearest(str(key), allowed)
        hint = f"did you mean {guess!r}?" if guess else f"allowed: {', '.join(sorted(allowed))}"
        raise locate(dotted(path, str(key))).error(f"unknown key; {hint}")


def dotted(*parts: str) -> str:
    """`parts` joined by dots, empty ones left out."""
    return ".".join(part for part in parts if part)


def read_struct(
    kind: type[S],
    data: Mapping[str, object],
    *,
    path: str,
    locate: Callable[[str], Location] = Location,
) -> S:
    """`data` as a `kind`, strictly.

    Args:
        kind: The settings class.
        data: Field name to value, as JSON has them.
        path: Dotted path of the section.
        locate: Where the user wrote what a dotted path names.

    Raises:
        ConfigError: If a key is unknown, a value mistyped or out of range, or a combination
            impossible.
    """

    def error(field: str, message: str) -> ConfigError:
        return locate(dotted(path, field)).error(message)

    def mistyped(field: str) -> ConfigError:
        return error(field, f"expected {allowed_values(kind, field)}, not {shown(data[field])}")

    check_keys(data, kind.__struct_fields__, path=path, locate=locate)
    for field, value in data.items():
        if not all(map(_storable, _leaves(value))):
            raise mistyped(field)
    try:
        return msgspec.convert(dict(data), kind)
    except msgspec.ValidationError as found:
        cause = found.__cause__
        if isinstance(cause, ConfigError):
            raise error(cause.path, message_of(cause)) from None
        match = _PATH.search(str(found))
        field = re.split(r"[.\[]", match.group(1))[0] if match else ""
        if field in data:
            raise mistyped(field) from None
        raise error("", str(found)) from None


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _storable(value: object) -> bool:
    """Whether JSON can hold `value`: no NaN, no half of a surrogate pair."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, float) or math.isfinite(value)


def depth_above(value: object, limit: int) -> bool:
    """Whether lists and objects in `value` are nested deeper than `limit`, found without recursion.

    What walks or prints a value recurses; the JSON reader's own limit is near the interpreter's.
    """
    level: list[object] = [value]
    for _ in range(limit + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | Mapping)
            for inner in (outer if isinstance(outer, list) else outer.values())
        ]
        if not level:
            return False
    return True


def allowed_values(kind: type[msgspec.Struct], field: str) -> str:
    """What `kind.field` accepts, in words: "a number > 0 or null"."""
    info = inspect.type_info(kind)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{kind} is no Struct")
    return _words(next(entry.type for entry in info.fields if entry.name == field))


def _words(info: inspect.Type) -> str:
    """`info` in words; the settings classes use no types beyond these."""
    match info:
        case inspect.UnionType(types=types):
            # null last, whatever the order of the annotation
            ordered = sorted(types, key=lambda item: isinstance(item, inspect.NoneType))
            words = " or ".join(_words(item) for item in ordered)
        case inspect.IntType() | inspect.FloatType():
            noun = "an integer" if isinstance(info, inspect.IntType) else "a number"
            words = noun + _bounds(info)
        case inspect.LiteralType(values=values):
            words = "one of " + ", ".join(f'"{value}"' for value in sorted(map(str, values)))
        case inspect.VarTupleType(item_type=item):
            words = f"a list, each element {_words(item)}"
        case _:
            words = _PLAIN_WORDS[type(info)]
    return words


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    limits = ((">", info.gt), (">=", info.ge), ("<", info.lt), ("<=", info.le))
    found = [f"{sign} {limit}" for sign, limit in limits if limit is not None]
    return f" {' and '.join(found)}" if found else ""


def different_paths(left: object, right: object, path: str = "") -> tuple[str, ...]:
    """Dotted paths, sorted, at which two trees of JSON data differ."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        missing = object()
        found: list[str] = []
        for key in sorted({*map(str, left), *map(str, right)}):
            below = f"{path}.{key}" if path else key
            pair = left.get(key, missing), right.get(key, missing)
            found += different_paths(*pair, below)
        return tuple(found)
    return () if left == right else (path,)
