"""Vectors of notices and of control."""

from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np

from clients.conformance.vectors import Collection, encoded
from rl4sys_stream.broker.control import Control, Promotion, Rule, Selection, control_fields
from rl4sys_stream.model_store.notice import Notice
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.compact import encode_compact_diff
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["add_control", "add_notices"]

F32 = np.float32
_BASE: Final = round_to_grid(
    Weights.from_tensors({"pi.0.weight": np.ones((2, 3), F32), "pi.0.bias": np.zeros(3, F32)}),
    [-4, -4],
)
_NEW: Final = round_to_grid(Weights(_BASE.weights.layout, _BASE.weights.flat + F32(0.25)), [-4, -4])
_EXTRAS: Final = BehaviorExtras().to_bytes()


def _notice() -> Notice:
    return Notice(
        version=18,
        token="3:ab",
        lineage="9f00",
        base_version=17,
        base_token="3:ab",
        digest=_NEW.weights.digest(_EXTRAS),
        extras=_EXTRAS,
        diff=encode_compact_diff(_BASE, _NEW) or b"",
    )


def add_notices(collection: Collection) -> None:
    """`notices.json`: each message to a reader that acts by version 17 of 3:ab in lineage 9f00."""
    whole = _notice()
    change = msgspec.structs.replace
    follows = {"version": 18, "token": "3:ab", "digest": whole.digest}
    vectors: list[dict[str, Any]] = []

    def one(name: str, says: str, message: bytes, outcome: dict[str, object]) -> None:
        file = collection.add(f"notices/{name}.json", message)
        vectors.append({"name": name, "says": says, "message": file} | outcome)

    looks: dict[str, object] = {"looks": True}
    one("with_diff", "The usual case.", whole.to_bytes(), {"follows": follows})
    strange = msgspec.json.encode(msgspec.json.decode(whole.to_bytes()) | {"colour": "blue"})
    one("unknown_key", "It is ignored.", strange, {"follows": follows})
    one("plain", "No diff.", Notice(version=18, token="3:ab", lineage="9f00").to_bytes(), looks)
    one("control", "About something else.", b'{"control":"5f1e"}', looks)
    one("reset", "A lineage begins.", b'{"version":0,"token":"","lineage":"77aa"}', looks)
    one("another_base", "", change(whole, base_version=16).to_bytes(), looks)
    one("another_base_token", "", change(whole, base_token="2:ff").to_bytes(), looks)
    one("another_lineage", "", change(whole, lineage="77aa").to_bytes(), looks)
    refusals = {
        "empty": (b"", "format"),
        "list": (b"[]", "format"),
        "cut": (whole.to_bytes()[:-9], "format"),
        "no_utf8": (b'{"token":"\xff"}', "format"),
        "version_text": (b'{"version":"18"}', "format"),
        "diff_no_base64": (b'{"version":18,"diff":"%%%"}', "format"),
        "diff_cut": (change(whole, diff=whole.diff[:-1]).to_bytes(), "format"),
        "diff_of_nonsense": (change(whole, diff=b"RL4D\1\2nothing").to_bytes(), "format"),
        "wrong_digest": (change(whole, digest="0" * 32).to_bytes(), "digest"),
        "other_extras": (change(whole, extras=b"{}").to_bytes(), "digest"),
    }
    for name, (message, error) in refusals.items():
        one(name, "", message, {"refused": error})
    held = {"version": 17, "token": "3:ab", "lineage": "9f00"}
    file = collection.add("notices/held.f32", _BASE.weights.flat.astype("<f4").tobytes())
    layout = msgspec.json.decode(_BASE.weights.layout.to_json())
    for vector in vectors:
        vector["held"] = held | {"layout": layout, "flat": file}
    collection.describe("notices.json", vectors)


_AGENTS: Final = tuple(f"host-{host}-{number}" for host in "ab" for number in range(1, 6))


def add_control(collection: Collection) -> None:
    """`control.json`: fields of the hash, and what each of some agents is to act by."""
    pin = Rule(rule_id="r1", action="pin", agents=Selection("host-a-*"), version=7, token="2:x")
    share = Rule(rule_id="r2", action="pin", agents=Selection(percent=30.0))
    both = Selection("host-[!a]-?", percent=60.0)
    stop = Rule(rule_id="r3", action="fallback", agents=both, reason="too slow", by="alice@ops")
    promoted = Promotion(version=9, token="3:y")
    salted = Control(revision="5f1e", salt="c0ffee")
    cases = {
        "nothing": Control(),
        "promoted": replace(salted, promoted=promoted),
        "pattern": replace(salted, rules=(pin,)),
        "share_to_the_head": replace(salted, rules=(share,), promoted=promoted),
        "stopped": replace(salted, rules=(stop,), promoted=promoted),
        "first_rule_holds": replace(salted, rules=(pin, share, stop), promoted=promoted),
        "everybody": replace(salted, rules=(replace_agents(stop),)),
    }
    vectors: list[dict[str, Any]] = [
        {
            "name": name,
            "fields": {key: encoded(data) for key, data in control_fields(control).items()},
            "directives": {
                agent: msgspec.to_builtins(control.directive(agent)) for agent in _AGENTS
            },
        }
        for name, control in cases.items()
    ]
    wrong = {
        "rules_no_json": {"rules": b"["},
        "rules_object": {"rules": b"{}"},
        "unknown_action": {"rules": b'[{"id":"r","action":"explode"}]'},
        "share_of_0": {"rules": b'[{"id":"r","action":"pin","agents":{"percent":0}}]'},
        "unknown_selection": {
            "rules": b'[{"id":"r","action":"fallback","agents":{"rack":"7"}}]',
        },
        "promoted_without_token": {"promoted": b'{"version":9}'},
    }
    vectors += [
        {"name": name, "fields": {k: encoded(v) for k, v in fields.items()}, "refused": "format"}
        for name, fields in wrong.items()
    ]
    collection.describe("control.json", vectors)


def replace_agents(rule: Rule) -> Rule:
    """`rule` for everybody."""
    return msgspec.structs.replace(rule, agents=Selection())
