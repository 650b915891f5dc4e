"""Stream entries (§4)."""

import math
import re
from typing import Any

import numpy as np

from tests.conformance.independent.message import read_message
from tests.conformance.independent.refusal import MAX_INTEGER, require, strict_json, whole

__all__ = ["read_entry"]

MAX_ENTRY_BYTES = 8 << 20
MAX_HEADER_BYTES = 65_536
MAX_STEPS = 65_536
ENDS = ("terminated", "truncated", "cut")


def nvec_of(space: dict[str, Any]) -> list[int]:
    """Choices of each element; none of a box."""
    match space["type"]:
        case "discrete":
            return [space["n"]]
        case "multi_discrete":
            return list(space["nvec"])
        case "multi_binary":
            return [2] * int(space["n"])
    return []


def read_entry(
    fields: dict[bytes, bytes], spec: dict[str, Any], limits: dict[str, int]
) -> dict[str, Any]:
    """The entry as vectors describe it."""
    found = _read_address(fields)
    size = sum(len(name) + len(value) for name, value in fields.items())
    require(size <= limits.get("max_entry_bytes", MAX_ENTRY_BYTES), "too large", "limit")
    if b"pb" in fields and b"h" not in fields:
        fields = read_message(fields[b"pb"], spec, limits)
    require(b"h" in fields, "no header")
    header_bytes = limits.get("max_header_bytes", MAX_HEADER_BYTES)
    require(len(fields[b"h"]) <= header_bytes, "header too large", "limit")
    header = strict_json(fields[b"h"])
    require(isinstance(header, dict), "the header is no object")
    require((header.get("v"), header.get("codec")) == (1, "columns"), "unknown format")
    steps = whole(header.get("steps"))
    require(steps <= limits.get("max_steps", MAX_STEPS), "too many steps", "limit")
    require(steps >= 1, "no steps")
    require(header.get("end") in ENDS, "unknown end")
    for name in ("episode", "offset", "created_ms"):
        found[name] = whole(header.get(name))
    found["end"] = header["end"]
    found["behavior"] = _read_behavior(header.get("behavior"), steps)
    return found | _read_columns(fields, header, spec, steps)


def _read_address(fields: dict[bytes, bytes]) -> dict[str, Any]:
    agent_id = fields.get(b"agent_id", b"")
    require(re.fullmatch(rb"[!-~]{1,128}", agent_id), "no agent_id")
    found: dict[str, Any] = {"agent_id": agent_id.decode()}
    for name in ("seq", "floor"):
        text = fields.get(name.encode(), b"")
        require(re.fullmatch(rb"[1-9][0-9]{0,15}", text), f"no {name}")
        found[name] = int(text)
        require(found[name] <= MAX_INTEGER, f"{name} is too large")
    require(found["floor"] <= found["seq"], "the floor is above seq")
    return found


def _read_behavior(runs: object, steps: int) -> list[list[object]]:
    require(isinstance(runs, list), "no behavior")
    total = 0
    for run in runs:  # type: ignore[attr-defined]
        require(isinstance(run, list) and len(run) == 3, "no run")
        version, token, length = run
        require(isinstance(token, str) and re.fullmatch(r"[!-~]{0,128}", token), "no token")
        require((whole(version) == 0) == (token in {"", "fallback"}), "impossible model")
        total += whole(length, 1)
    require(total == steps, "behavior does not add up")
    return runs  # type: ignore[return-value]


def _read_columns(
    fields: dict[bytes, bytes], header: dict[str, Any], spec: dict[str, Any], steps: int
) -> dict[str, Any]:
    space = spec["action_space"]
    nvec, width = nvec_of(space), spec["obs_dim"]
    choices = sum(nvec)
    if not nvec:
        action = ["<f4", [math.prod(space["shape"])]]
    else:
        action = ["<i8", [] if space["type"] == "discrete" else [len(nvec)]]
    columns: dict[str, list[Any]] = {
        "obs": ["<f4", [width]],
        "action": action,
        "reward": ["<f4", []],
        "log_prob": ["<f4", []],
    }
    declared = header.get("cols")
    require(isinstance(declared, dict), "no columns")
    if "mask" in declared and nvec:  # type: ignore[operator]
        columns["mask"] = ["|u1", [choices]]
    if "prior" in declared and nvec and spec["priors"]:  # type: ignore[operator]
        columns["prior"] = ["<f4", [choices]]
    require(declared == columns, "other columns than the client's")
    arrays = {
        name: _array(fields, name, kind, [steps, *shape]) for name, (kind, shape) in columns.items()
    }
    for name, kind, shape in (("final_obs", "<f4", [width]), ("final_mask", "|u1", [choices])):
        if (stated := header.get(name)) is not None:
            require(stated == [kind, shape], f"{name} is declared otherwise")
            arrays[name] = _array(fields, name, kind, shape)
    _check(arrays, header, nvec)
    for name in ("mask", "final_mask"):
        if name in arrays:
            arrays[name] = arrays[name] == 1
    names = (*columns, "mask", "prior", "final_obs", "final_mask")
    return {name: arrays[name].tolist() if name in arrays else None for name in names}


def _array(fields: dict[bytes, bytes], name: str, kind: str, shape: list[int]) -> Any:
    data = fields.get(name.encode())
    size = math.prod(shape) * np.dtype(kind).itemsize
    require(data is not None and len(data) == size, f"{name} has another length")
    return np.frombuffer(data or b"", kind).reshape(shape)


def _check(arrays: dict[str, Any], header: dict[str, Any], nvec: list[int]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            require(np.isfinite(array).all(), f"{name} is not finite")
    require("final_obs" in arrays or header["end"] == "terminated", "no final observation")
    require("final_mask" not in arrays or "final_obs" in arrays, "a final mask alone")
    if not nvec:
        require("final_mask" not in arrays, "a mask of a box")
        return
    require((arrays["log_prob"] <= 1e-6).all(), "a probability above 1")
    if "prior" in arrays:
        require((np.abs(arrays["prior"]) <= 1000).all(), "a prior beyond 1000")
    for name in ("mask", "final_mask"):
        require(name not in arrays or (arrays[name] <= 1).all(), f"{name} is no mask")
    taken = arrays["action"].reshape(len(arrays["reward"]), len(nvec))
    start = 0
    for index, n in enumerate(nvec):
        column = taken[:, index]
        require(((column >= 0) & (column < n)).all(), "an action out of range")
        if "mask" in arrays:
            rows = np.arange(len(column))
            require(arrays["mask"][rows, start + column].all(), "a forbidden action")
        if "final_mask" in arrays:
            require(arrays["final_mask"][start : start + n].any(), "nothing is allowed")
        start += n
