"""Entries as Protocol Buffers (§4), made into those of the other codec by hand."""

import json
import math
from collections.abc import Iterator
from typing import Any

from tests.conformance.independent.refusal import MAX_INTEGER, refuse, require

__all__ = ["read_message"]

NAMES = {
    2: "obs",
    3: "action",
    4: "action",
    5: "reward",
    6: "log_prob",
    7: "mask",
    8: "prior",
    9: "final_obs",
    10: "final_mask",
}
ENDS = {1: "terminated", 2: "truncated", 3: "cut"}


def fields_of(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and content of each field."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for index in range(10):
            require(at < len(data), "the message is cut")
            byte = data[at]
            at += 1
            value |= (byte & 127) << 7 * index
            if byte < 128:
                return value
        return refuse("a number of more than 64 bits")

    while at < len(data):
        tag = varint()
        sizes = {1: 8, 5: 4}
        content: Any = None
        if tag & 7 == 0:
            content = varint()
        elif tag & 7 in {1, 2, 5}:
            size = sizes.get(tag & 7) or (varint() if tag & 7 == 2 else 0)
            require(size <= len(data) - at, "the message is cut")
            content = data[at : at + size]
            at += size
        else:
            refuse("a group, or no wire type at all")
        yield tag >> 3, content


def read_message(data: bytes, spec: dict[str, Any], limits: dict[str, int]) -> dict[bytes, bytes]:
    """The entry with a JSON header and columns that says the same."""
    found = list(fields_of(data))
    require(len(found) <= 256, "too many fields", "limit")
    columns = {NAMES[number]: content for number, content in found if number in NAMES}
    aside = len(data) - sum(len(content) for number, content in found if number in NAMES)
    require(aside <= limits.get("max_header_bytes", 65_536), "too much header", "limit")
    inner = [field for number, content in found if number == 1 for field in fields_of(content)]
    said = {number: content for number, content in inner if number != 3}
    require(said.get(1) == 1, "another format")
    steps = said.get(2, 0)
    require(steps <= limits.get("max_steps", 65_536), "too many steps", "limit")
    each = [dict(fields_of(content)) for number, content in inner if number == 3]
    runs = [[run.get(1, 0), run.get(2, b"").decode("ascii"), run.get(3, 0)] for run in each]
    require(len(runs) * 4 <= len(columns.get("reward", b"")), "more runs than steps")
    kinds = {number for number, _ in found}
    header = {
        "v": 1,
        "codec": "columns",
        "steps": steps,
        "behavior": runs,
        "end": ENDS.get(said.get(4, 0), ""),
    }
    for number, name in ((5, "episode"), (6, "offset"), (7, "created_ms")):
        header[name] = min(said.get(number, 0), MAX_INTEGER + 1)
    shapes = _shapes(spec, "<f4" if 4 in kinds else "<i8")
    for name in ("final_obs", "final_mask"):
        header[name] = shapes.pop(name) if name in columns else None
    header["cols"] = {name: shape for name, shape in shapes.items() if name in columns}
    fields = {name.encode(): content for name, content in columns.items()}
    return fields | {b"h": json.dumps(header).encode()}


def _shapes(spec: dict[str, Any], kind: str) -> dict[str, Any]:
    space = spec["action_space"]
    match space["type"]:
        case "discrete":
            action, choices = [], space["n"]
        case "multi_discrete":
            action, choices = [len(space["nvec"])], sum(space["nvec"])
        case "multi_binary":
            action, choices = [space["n"]], 2 * space["n"]
        case _:
            action, choices = [math.prod(space["shape"])], 0
    return {
        "obs": ["<f4", [spec["obs_dim"]]],
        "action": [kind, action],
        "reward": ["<f4", []],
        "log_prob": ["<f4", []],
        "mask": ["|u1", [choices]],
        "prior": ["<f4", [choices]],
        "final_obs": ["<f4", [spec["obs_dim"]]],
        "final_mask": ["|u1", [choices]],
    }
