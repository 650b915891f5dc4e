"""Vectors of stream entries."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.conformance.vectors import Collection
from rl4sys_stream.spaces import space_from_json
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.trajectory import (
    BehaviorRun,
    End,
    EntryAddress,
    Trajectory,
    address_fields,
    encode_trajectory,
)

__all__ = ["add_trajectories"]

F32 = np.float32
_OBS_DIM: Final = 3
_ADDRESS: Final = EntryAddress("agent-7", 12, 9)
_SPACES: Final[dict[str, dict[str, Any]]] = {
    "discrete": {"type": "discrete", "n": 4},
    "multi_discrete": {"type": "multi_discrete", "nvec": [3, 2]},
    "multi_binary": {"type": "multi_binary", "n": 3},
    "box": {"type": "box", "shape": [2], "low": -1.0, "high": 1.0},
}
_GONE: Final = object()

_Fields = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _Vector:
    """One entry and what becomes of it.

    Attributes:
        name: Of the vector and of its file.
        says: In words.
        fields: Of the entry.
        kind: Of the client's actions.
        decodes: What is in it; None where it is refused.
        refused: The error's name, "" where it decodes.
        priors: Whether the client takes any.
        limits: Where they are not the usual ones.
    """

    name: str
    says: str
    fields: _Fields
    kind: str = "discrete"
    decodes: Trajectory | None = None
    refused: str = ""
    priors: bool = True
    limits: dict[str, int] = field(default_factory=dict)


def _trajectory(kind: str, steps: int = 3, **changes: Any) -> Trajectory:  # noqa: ANN401
    """One without anything out of the ordinary."""
    actions = ActionFormat.of(space_from_json(_SPACES[kind]))
    ramp = np.arange(steps * _OBS_DIM, dtype=F32).reshape(steps, _OBS_DIM)
    plain = Trajectory(
        observations=(ramp - F32(4)) / F32(8),
        actions=_actions(actions, steps),
        rewards=(np.arange(steps, dtype=F32) - F32(1)) / F32(4),
        log_probs=np.full(steps, -1.386294364929199, F32),
        masks=None,
        final_observation=None,
        end=End.TERMINATED,
        behavior=(BehaviorRun(17, "3:b2c9", steps),),
        episode=4,
        offset=0,
        created_ms=1_767_225_600_000,
    )
    return replace(plain, **changes)


def _actions(actions: ActionFormat, steps: int) -> NDArray[Any]:
    if actions.continuous:
        return np.linspace(-3, 3, steps * actions.dim, dtype=F32).reshape(steps, actions.dim)
    counted = np.arange(steps)[:, None] % np.array(actions.nvec)
    found: NDArray[Any] = counted[:, 0] if actions.single else counted
    return found


def _entry(trajectory: Trajectory) -> _Fields:
    fields = (*address_fields(_ADDRESS), *encode_trajectory(trajectory))
    return {name.decode(): data for name, data in fields}


def _with_header(entry: _Fields, **changes: object) -> _Fields:
    header = json.loads(entry["h"]) | changes
    kept = {key: value for key, value in header.items() if value is not _GONE}
    return entry | {"h": json.dumps(kept, separators=(",", ":")).encode()}


def _without(entry: _Fields, name: str) -> _Fields:
    return {key: data for key, data in entry.items() if key != name}


def _masked(**changes: Any) -> Trajectory:  # noqa: ANN401
    masks = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]], np.bool_)
    changed: dict[str, Any] = {
        "masks": masks,
        "final_observation": np.array([0.5, 0.25, -0.125], F32),
        "final_mask": np.array([0, 0, 1, 0], np.bool_),
        "end": End.CUT,
        "offset": 256,
    }
    return _trajectory("discrete", **changed | changes)


def _valid() -> Iterator[_Vector]:
    def one(name: str, says: str, found: Trajectory, kind: str = "discrete") -> _Vector:
        return _Vector(name, says, _entry(found), kind, found)

    plain = _trajectory("discrete")
    yield one("discrete", "One integer a step; the episode terminated.", plain)
    yield one("masked_cut", "Masks, a final observation with its mask, and a cut.", _masked())
    priors = np.linspace(-1000, 1000, 12, dtype=F32).reshape(3, 4)
    yield one("prior", "Logits of the application's own.", replace(plain, priors=priors))
    final = np.zeros(_OBS_DIM, F32)
    for kind in ("multi_discrete", "multi_binary", "box"):
        found = _trajectory(kind, final_observation=final, end=End.TRUNCATED)
        yield one(kind, "Several elements an action; truncated.", found, kind)
    choices = np.array([[1, 0, 0, 1, 1], [1, 1, 1, 0, 1], [0, 0, 1, 1, 0]], np.bool_)
    several = _trajectory("multi_discrete", masks=choices)
    yield one("multi_discrete_masked", "A mask for every choice.", several, "multi_discrete")
    dense = np.array([2.5, 0.5, -40], F32)
    found = _trajectory("box", log_probs=dense)
    yield one("density_above_one", "A density's logarithm may be above 0.", found, "box")
    runs = (BehaviorRun(0, "", 1), BehaviorRun(0, "fallback", 1), BehaviorRun(18, "4:x", 1))
    yield one("behaviors", "Chance, the fallback, a model.", replace(plain, behavior=runs))
    bits = np.array([[0x80000000, 1, 0x807FFFFF], [0x7F7FFFFF, 0xFF7FFFFF, 0]] * 2, np.uint32)
    extreme = _trajectory("discrete", 4, observations=bits.view(F32))
    yield one("extreme_numbers", "-0.0, subnormal numbers, the largest ones.", extreme)
    rounded = replace(plain, log_probs=np.array([5e-7, -0.0, -100], F32))
    yield one("rounded_up", "A probability of 1 may be a rounding error above it.", rounded)
    strange = _with_header(_entry(plain), colour="blue", final_obs=None)
    fields = strange | {"x-trace": b"\xff\x00"}
    yield _Vector("unknown_keys", "They are ignored.", fields, decodes=plain)
    yield _Vector("no_prior_taken", "As ever, if none is sent.", _entry(plain), decodes=plain,
                  priors=False)  # fmt: skip


def _refused_addresses() -> Iterator[_Vector]:
    entry = _entry(_trajectory("discrete"))
    yield _Vector("no_agent_id", "", _without(entry, "agent_id"), refused="format")
    for name, changes in {
        "blank_in_agent_id": {"agent_id": b"agent 7"},
        "empty_agent_id": {"agent_id": b""},
        "long_agent_id": {"agent_id": b"a" * 129},
        "seq_0": {"seq": b"0", "floor": b"0"},
        "leading_zero": {"seq": b"012"},
        "sign": {"seq": b"+12"},
        "beyond_exact_integers": {"seq": b"9007199254740992"},
        "floor_above_seq": {"floor": b"13"},
    }.items():
        yield _Vector(name, "", entry | changes, refused="format")


def _refused_headers() -> Iterator[_Vector]:
    entry = _entry(_trajectory("discrete"))
    columns = json.loads(entry["h"])["cols"]
    yield _Vector("no_header", "", _without(entry, "h"), refused="format")
    raw = {
        "empty_header": b"",
        "header_cut": entry["h"][:-20],
        "header_list": b"[]",
        "header_no_utf8": entry["h"].replace(b"terminated", b"\xff"),
        "header_of_brackets": b"[" * 5000,
    }
    for name, data in raw.items():
        yield _Vector(name, "", entry | {"h": data}, refused="format")
    yield _Vector(
        "header_above_limit", "", entry, refused="limit", limits={"max_header_bytes": 100}
    )
    changes: dict[str, dict[str, object]] = {
        "unknown_version": {"v": 2},
        "unknown_codec": {"codec": "rows"},
        "no_steps": {"steps": 0},
        "no_columns": {"cols": {}},
        "unknown_column": {"cols": columns | {"value": ["<f4", []]}},
        "wrong_type": {"cols": columns | {"reward": ["<f8", []]}},
        "big_endian": {"cols": columns | {"obs": [">f4", [3]]}},
        "wrong_shape": {"cols": columns | {"obs": ["<f4", [4]]}},
        "huge_shape": {"cols": columns | {"obs": ["<f4", [1 << 40]]}},
        "negative_shape": {"cols": columns | {"obs": ["<f4", [-3]]}},
        "no_behavior": {"behavior": []},
        "behavior_too_short": {"behavior": [[17, "3:b2c9", 2]]},
        "run_of_nothing": {"behavior": [[17, "3:b2c9", 3], [18, "3:b2c9", 0]]},
        "version_without_token": {"behavior": [[17, "", 3]]},
        "token_without_version": {"behavior": [[0, "3:b2c9", 3]]},
        "fallback_with_version": {"behavior": [[17, "fallback", 3]]},
        "blank_in_token": {"behavior": [[17, "3 b", 3]]},
        "unknown_end": {"end": "done"},
        "no_end": {"end": _GONE},
        "negative_episode": {"episode": -1},
        "fraction": {"offset": 0.5},
        "truncated_without_observation": {"end": "truncated"},
        "final_mask_alone": {"final_mask": ["|u1", [4]]},
    }
    for name, change in changes.items():
        yield _Vector(name, "", _with_header(entry, **change), refused="format")
    for name, steps in (("huge_steps", 1 << 40), ("too_many_steps", 65_537)):
        yield _Vector(name, "", _with_header(entry, steps=steps), refused="limit")
    yield _Vector("entry_above_limit", "", entry, refused="limit", limits={"max_entry_bytes": 200})


def _refused_values() -> Iterator[_Vector]:
    plain = _trajectory("discrete")
    entry = _entry(plain)
    yield _Vector("no_column", "", _without(entry, "obs"), refused="format")
    yield _Vector("column_cut", "", entry | {"obs": entry["obs"][:-1]}, refused="format")
    yield _Vector("column_too_long", "", entry | {"obs": entry["obs"] + bytes(4)}, refused="format")
    yield _Vector("empty_column", "", entry | {"reward": b""}, refused="format")
    for name, row, value in (
        ("nan_observation", "observations", np.nan),
        ("infinite_reward", "rewards", np.inf),
        ("nan_log_prob", "log_probs", np.nan),
        ("log_prob_above_0", "log_probs", 0.001),
        ("action_too_high", "actions", 4),
        ("action_negative", "actions", -1),
    ):
        changed = getattr(plain, row).copy()
        changed.flat[1] = value
        yield _Vector(name, "", _entry(replace(plain, **{row: changed})), refused="format")
    box = _trajectory("box", actions=np.array([[0, np.inf]] * 3, F32))
    yield _Vector("infinite_action", "", _entry(box), "box", refused="format")
    for name, logit in (("nan_prior", np.nan), ("prior_beyond_1000", 1000.125)):
        priors = np.full((3, 4), logit, F32)
        yield _Vector(name, "", _entry(replace(plain, priors=priors)), refused="format")
    leaning = _entry(replace(plain, priors=np.zeros((3, 4), F32)))
    yield _Vector("prior_not_taken", "", leaning, refused="format", priors=False)


def _refused_masks() -> Iterator[_Vector]:
    entry = _entry(_masked())
    two = entry["mask"].replace(b"\1", b"\2", 1)
    yield _Vector("mask_of_2", "", entry | {"mask": two}, refused="format")
    forbidden = _entry(_masked(actions=np.array([1, 1, 1])))
    yield _Vector("forbidden_action", "Its mask forbids it.", forbidden, refused="format")
    nothing = _entry(_masked(final_mask=np.zeros(4, np.bool_)))
    yield _Vector("final_mask_of_nothing", "", nothing, refused="format")
    one_choice = _trajectory(
        "multi_discrete",
        final_observation=np.zeros(_OBS_DIM, F32),
        final_mask=np.array([1, 1, 1, 0, 0], np.bool_),
    )
    says = "Nothing of the second choice is allowed."
    yield _Vector(
        "final_mask_of_one_choice", says, _entry(one_choice), "multi_discrete", refused="format"
    )
    box = _entry(_trajectory("box", masks=np.ones((3, 2), np.bool_)))
    yield _Vector("mask_of_a_box", "", box, "box", refused="format")


def _messages() -> Iterator[_Vector]:
    """The same as Protocol Buffers."""
    for one in (vector for vector in _valid() if vector.decodes is not None):
        if one.name in {"discrete", "masked_cut", "prior", "multi_discrete", "box", "behaviors"}:
            yield replace(one, name=f"message_{one.name}", fields=_message(one.decodes))
    plain = _trajectory("discrete")
    entry = _message(plain)
    later = entry | {"pb": entry["pb"] + b"\x82\x06\x03abc\x88\x06\x05"}
    yield _Vector("message_unknown_fields", "They are ignored.", later, decodes=plain)
    both = _entry(plain) | {"pb": b"nonsense"}
    yield _Vector("message_beside_header", "The header decides.", both, decodes=plain)
    says = "Of a header: two bytes each, many more in memory."
    runs = entry | {"pb": b"\x0a\xe8\x07" + b"\x1a\x00" * 500}
    yield _Vector("message_of_empty_runs", says, runs, refused="format")
    yield _Vector(
        "message_header_above_limit", "", runs, refused="limit", limits={"max_header_bytes": 900}
    )
    many = entry | {"pb": b"\x0a\x00" * 257}
    yield _Vector("message_of_many_fields", "", many, refused="limit")
    steps = {"max_steps": 2}
    yield _Vector("message_too_many_steps", "", entry, refused="limit", limits=steps)
    for name, data in {
        "empty": b"",
        "cut": entry["pb"][:-1],
        "of_a_group": b"\x0b" + entry["pb"] + b"\x0c",
        "of_a_long_number": entry["pb"] + b"\x88\x06" + b"\xff" * 10 + b"\1",
        "unknown_format": entry["pb"].replace(b"\x08\1\x10\3", b"\x08\2\x10\3", 1),
        "unknown_end": entry["pb"].replace(b"\x20\1\x28\4", b"\x20\7\x28\4", 1),
        "no_end": entry["pb"].replace(b"\x20\1\x28\4", b"\x20\0\x28\4", 1),
        "vectors_for_choices": entry["pb"].replace(b"\x1a\x18\0\0", b"\x22\x18\0\0", 1),
        "without_rewards": entry["pb"].replace(b"\x2a\x0c\0\0", b"\x7a\x0c\0\0", 1),
    }.items():
        if data == entry["pb"]:
            raise ValueError(f"{name} is an honest message")
        yield _Vector(f"message_{name}", "", entry | {"pb": data}, refused="format")


def _message(trajectory: Trajectory | None) -> _Fields:
    if trajectory is None:
        raise ValueError("nothing to encode")
    fields = (*address_fields(_ADDRESS), *encode_trajectory(trajectory, "protobuf"))
    return {name.decode(): data for name, data in fields}


def _listed(array: NDArray[Any] | None) -> object:
    return None if array is None else array.tolist()


def _content(found: Trajectory) -> dict[str, object]:
    """What a reader must find, numbers as JSON holds them exactly."""
    return {
        "agent_id": _ADDRESS.agent_id,
        "seq": _ADDRESS.seq,
        "floor": _ADDRESS.floor,
        "obs": _listed(found.observations),
        "action": _listed(found.actions),
        "reward": _listed(found.rewards),
        "log_prob": _listed(found.log_probs),
        "mask": _listed(found.masks),
        "prior": _listed(found.priors),
        "final_obs": _listed(found.final_observation),
        "final_mask": _listed(found.final_mask),
        "end": found.end.value,
        "behavior": [[run.version, run.token, run.steps] for run in found.behavior],
        "episode": found.episode,
        "offset": found.offset,
        "created_ms": found.created_ms,
    }


def add_trajectories(collection: Collection) -> None:
    """`trajectories.json` and the values of each entry's fields, one after another."""
    vectors: list[dict[str, Any]] = []
    makers = (
        _valid,
        _refused_addresses,
        _refused_headers,
        _refused_values,
        _refused_masks,
        _messages,
    )
    for one in (vector for make in makers for vector in make()):
        found: dict[str, Any] = {"name": one.name, "says": one.says}
        spec = {"obs_dim": _OBS_DIM, "action_space": _SPACES[one.kind], "priors": one.priors}
        found |= {"spec": spec, "limits": one.limits}
        found["fields"] = [[name, len(data)] for name, data in one.fields.items()]
        data = b"".join(one.fields.values())
        found["values"] = collection.add(f"trajectories/{one.name}.bin", data)
        if one.decodes is None:
            found["refused"] = one.refused
        else:
            found["decodes"] = _content(one.decodes)
        vectors.append(found)
    collection.describe("trajectories.json", vectors)
