"""The three ways to refuse (§1), and JSON that is refused by one of them."""

import json
from typing import Any, Never

__all__ = ["MAX_INTEGER", "RefusedError", "refuse", "require", "strict_json", "whole"]

MAX_INTEGER = 2**53 - 1


class RefusedError(Exception):
    """`format`, `limit` or `digest`, and why."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


def refuse(why: str, name: str = "format") -> Never:
    """Refuse."""
    raise RefusedError(name, why)


def require(condition: object, why: str, name: str = "format") -> None:
    """Refuse unless `condition` holds."""
    if not condition:
        refuse(why, name)


def strict_json(data: bytes) -> Any:
    """What JSON says."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RefusedError("format", str(error)) from None


def whole(value: object, least: int = 0, most: int = MAX_INTEGER) -> int:
    """An integer of JSON."""
    if type(value) is not int or not least <= value <= most:
        refuse(f"{value!r} is no integer from {least} to {most}")
    return value
