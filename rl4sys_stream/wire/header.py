"""The JSON header of a trajectory entry.

```
{"v": 1, "codec": "columns", "steps": 200,
 "cols": {"obs": ["<f4", [8]], "action": ["<i8", []], "reward": ["<f4", []],
          "log_prob": ["<f4", []], "mask": ["|u1", [4]]},
 "behavior": [[17, "3:b2c9", 150], [18, "3:b2c9", 50]], "end": "cut", "episode": 4, "offset": 256,
 "created_ms": 1767225600000, "final_obs": ["<f4", [8]], "final_mask": ["|u1", [4]]}
```
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from rl4sys_stream.errors import WireFormatError, WireLimitError
from rl4sys_stream.wire.address import entry_field
from rl4sys_stream.wire.format import (
    MAX_EXACT_INTEGER,
    MAX_TOKEN_CHARS,
    TRAJECTORY_CODEC,
    TRAJECTORY_FORMAT,
    End,
    WireLimits,
)
from rl4sys_stream.wire.tensor import Column

__all__ = ["Header", "Run", "check_entry_size", "check_steps", "read_header"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT_INTEGER)]
_Steps = Annotated[int, msgspec.Meta(ge=1, le=MAX_EXACT_INTEGER)]


class Run(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[version, token, steps]` in the header."""

    version: _Count
    token: Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{0,{MAX_TOKEN_CHARS}}}\Z")]
    steps: _Steps


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The header of an entry; shapes leave the number of steps out."""

    v: _Count
    codec: str
    steps: _Steps
    cols: dict[str, Column]
    behavior: tuple[Run, ...]
    end: End
    episode: _Count
    offset: _Count
    created_ms: _Count
    final_obs: Column | None = None
    final_mask: Column | None = None


class _Preamble(msgspec.Struct, frozen=True):
    """What the header of any format version has."""

    v: _Count
    codec: str


def read_header(fields: Mapping[bytes, bytes], limits: WireLimits) -> Header:
    """The header in an entry's field `h`; the shapes in it are not checked yet.

    Raises:
        WireFormatError: If there is none, it does not parse, or its format is unknown.
        WireLimitError: If the entry, the header or the number of steps is above `limits`.
    """
    check_entry_size(fields, limits)
    data = entry_field(fields, b"h")
    if len(data) > limits.max_header_bytes:
        raise WireLimitError(
            f"a header of {len(data)} bytes; {limits.max_header_bytes} are allowed"
        )
    try:
        header = msgspec.json.decode(data, type=Header)
    # ValueError: invalid UTF-8 and absurd numbers. RecursionError: a bomb of brackets.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _check_format(_read_preamble(data))
        raise WireFormatError(f"the header does not parse: {error}") from None
    _check_format(header)
    check_steps(header.steps, limits)
    return header


def check_entry_size(fields: Mapping[bytes, bytes], limits: WireLimits) -> None:
    """Refuse an entry by its size alone.

    Raises:
        WireLimitError: If it is larger than `limits`.
    """
    size = sum(len(name) + len(data) for name, data in fields.items())
    if size > limits.max_entry_bytes:
        raise WireLimitError(f"an entry of {size} bytes; {limits.max_entry_bytes} are allowed")


def check_steps(steps: int, limits: WireLimits) -> None:
    """Refuse an entry by the steps that it declares.

    Raises:
        WireLimitError: If there are more than `limits` says.
    """
    if steps > limits.max_steps:
        raise WireLimitError(f"{steps} steps; {limits.max_steps} are allowed")


def _read_preamble(data: bytes) -> _Preamble | None:
    try:
        return msgspec.json.decode(data, type=_Preamble)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _check_format(header: Header | _Preamble | None) -> None:
    """Name a newer format as such, not as a broken header."""
    if header is not None and (header.v, header.codec) != (TRAJECTORY_FORMAT, TRAJECTORY_CODEC):
        raise WireFormatError(
            f"trajectory format {header.v}, codec {header.codec[:40]!r} is unknown; this side "
            f"reads format {TRAJECTORY_FORMAT}, codec {TRAJECTORY_CODEC!r}: upgrade it"
        )
