"""JSON from outside as typed values: whatever the bytes are, one named error."""

from typing import TypeVar

import msgspec

from rl4sys_stream.errors import WireFormatError

__all__ = ["decode_json"]

T = TypeVar("T")


def decode_json(data: bytes | str, kind: type[T], what: str) -> T:
    """`data` as a `kind`.

    Args:
        data: JSON.
        kind: A type that msgspec knows.
        what: It is, for the message.

    Raises:
        WireFormatError: If it is not that.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    # ValueError: invalid UTF-8 and absurd numbers. RecursionError: a bomb of brackets.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireFormatError(f"{what} does not decode: {error}") from None
