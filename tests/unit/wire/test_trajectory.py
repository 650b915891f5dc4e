"""The trajectory codec: exact round trips, and a named refusal for every broken promise."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings

from rl4sys_stream.errors import WireFormatError, WireLimitError
from rl4sys_stream.spaces import Box, Discrete, MultiDiscrete
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import WireLimits
from rl4sys_stream.wire.trajectory import (
    BehaviorRun,
    End,
    Trajectory,
    TrajectorySpec,
    decode_trajectory,
    encode_trajectory,
)
from tests.unit.wire.strategies import assert_same_trajectory, trajectories

FOUR = ActionFormat.of(Discrete(4))
SPEC = TrajectorySpec(3, FOUR)


def make(**changes: Any) -> Trajectory:
    """Five valid steps under `SPEC`, with `changes`."""
    fields: dict[str, Any] = {
        "observations": np.arange(15, dtype=np.float32).reshape(5, 3),
        "actions": np.array([0, 1, 2, 3, 0]),
        "rewards": np.ones(5, np.float32),
        "log_probs": np.full(5, -1.5, np.float32),
        "masks": np.ones((5, 4), np.bool_),
        "final_observation": np.zeros(3, np.float32),
        "final_mask": np.array([True, False, False, True]),
        "end": End.TRUNCATED,
        "behavior": (BehaviorRun(0, "", 2), BehaviorRun(7, "3:ab", 3)),
        "episode": 4,
        "offset": 256,
        "created_ms": 1_767_225_600_000,
    }
    return Trajectory(**{**fields, **changes})


def fields_with_header(**changes: object) -> dict[bytes, bytes]:
    """A valid entry whose header has `changes`; None removes a key."""
    fields = dict(encode_trajectory(make()))
    header = orjson.loads(fields[b"h"]) | changes
    fields[b"h"] = orjson.dumps({k: v for k, v in header.items() if v is not None})
    return fields


@settings(max_examples=300, deadline=None)
@given(trajectories())
def test_every_trajectory_comes_back_bit_for_bit(case):
    """Arrays, ends, behavior runs and counters survive encoding and decoding."""
    trajectory, spec = case
    decoded = decode_trajectory(dict(encode_trajectory(trajectory)), spec)
    assert_same_trajectory(trajectory, decoded)


def test_the_header_is_the_documented_json():
    """Other languages write and read exactly this."""
    fields = dict(encode_trajectory(make()))
    assert orjson.loads(fields[b"h"]) == {
        "v": 1,
        "codec": "columns",
        "steps": 5,
        "cols": {
            "obs": ["<f4", [3]],
            "action": ["<i8", []],
            "reward": ["<f4", []],
            "log_prob": ["<f4", []],
            "mask": ["|u1", [4]],
        },
        "behavior": [[0, "", 2], [7, "3:ab", 3]],
        "end": "truncated",
        "episode": 4,
        "offset": 256,
        "created_ms": 1_767_225_600_000,
        "final_obs": ["<f4", [3]],
        "final_mask": ["|u1", [4]],
    }
    assert list(fields) == [
        *(b"h", b"obs", b"action", b"reward", b"log_prob", b"mask"),
        *(b"final_obs", b"final_mask"),
    ]
    assert fields[b"final_mask"] == b"\1\0\0\1"
    assert fields[b"action"] == b"".join(n.to_bytes(8, "little") for n in (0, 1, 2, 3, 0))


def test_decoded_arrays_are_views_of_the_received_bytes():
    """Decoding copies nothing, and nobody can write to what was received."""
    fields = dict(encode_trajectory(make()))
    decoded = decode_trajectory(fields, SPEC)
    for name, array in (
        (b"obs", decoded.observations),
        (b"mask", decoded.masks),
        (b"final_mask", decoded.final_mask),
    ):
        assert array is not None
        assert not array.flags.writeable
        assert np.shares_memory(array, np.frombuffer(fields[name], np.uint8))


def test_arrays_of_other_types_and_orders_are_encoded_by_value():
    """Big-endian, float64, bool and strided arrays end as the format's little-endian columns."""
    trajectory = make(
        observations=np.asfortranarray(make().observations.astype(">f8")),
        actions=make().actions.astype(">i2"),
        rewards=np.ones(10, ">f4")[::2],
    )
    assert_same_trajectory(make(), decode_trajectory(dict(encode_trajectory(trajectory)), SPEC))


def test_only_a_terminated_trajectory_may_lack_its_final_observation():
    """Truncated and cut ones need it for their bootstrap value, on both sides."""
    terminated = make(end=End.TERMINATED, final_observation=None, final_mask=None)
    fields = dict(encode_trajectory(terminated))
    assert decode_trajectory(fields, SPEC).final_observation is None
    for end in (End.TRUNCATED, End.CUT):
        with pytest.raises(WireFormatError, match="no final observation"):
            encode_trajectory(replace(terminated, end=end))
        with pytest.raises(WireFormatError, match="no final observation"):
            decode_trajectory(fields_with_header(end=end, final_obs=None), SPEC)


def test_an_entry_without_a_final_mask_decodes():
    """As agents write it that are not told what is allowed next, and older ones always."""
    trajectory = make(final_mask=None)
    fields = dict(encode_trajectory(trajectory))
    assert b"final_mask" not in fields
    assert "final_mask" not in orjson.loads(fields[b"h"])
    assert_same_trajectory(trajectory, decode_trajectory(fields, SPEC))


@pytest.mark.parametrize("masks", [None, make().masks])
def test_a_final_mask_needs_no_other_masks(masks):
    """The first state in which something is forbidden may be the one after a cut."""
    trajectory = make(masks=masks)
    assert_same_trajectory(trajectory, decode_trajectory(dict(encode_trajectory(trajectory)), SPEC))


@pytest.mark.parametrize(
    ("nvec", "mask"), [((4,), [0, 0, 0, 0]), ((2, 3), [0, 0, 1, 0, 0]), ((2, 3), [1, 0, 0, 0, 0])]
)
def test_a_final_mask_that_forbids_a_whole_choice_is_refused(nvec, mask):
    """The best of nothing would be minus infinity, and every value that is learned from it."""
    spec = TrajectorySpec(3, ActionFormat.of(MultiDiscrete(nvec)))
    changes = {"actions": np.zeros((5, len(nvec)), np.int64), "masks": None}
    trajectory = make(**changes, final_mask=np.array(mask, np.bool_))
    with pytest.raises(WireFormatError, match="final mask forbids"):
        decode_trajectory(dict(encode_trajectory(trajectory)), spec)


def test_a_final_mask_of_real_valued_actions_is_refused():
    """There is nothing to forbid."""
    spec = TrajectorySpec(3, ActionFormat.of(Box((2,))))
    changes = {"actions": np.zeros((5, 2), np.float32), "masks": None}
    for mask in (np.ones(4, np.bool_), np.ones(0, np.bool_)):
        trajectory = make(**changes, final_mask=mask)
        with pytest.raises(WireFormatError, match="final mask"):
            decode_trajectory(dict(encode_trajectory(trajectory)), spec)


@pytest.mark.parametrize(
    "field", [b"h", b"obs", b"action", b"reward", b"log_prob", b"mask", b"final_mask"]
)
def test_a_missing_field_is_named(field):
    """What the header declares must be there."""
    fields = dict(encode_trajectory(make()))
    del fields[field]
    with pytest.raises(WireFormatError, match=field.decode()):
        decode_trajectory(fields, SPEC)


@pytest.mark.parametrize(
    "field", [b"obs", b"action", b"reward", b"log_prob", b"mask", b"final_obs", b"final_mask"]
)
@pytest.mark.parametrize("change", [1, -1])
def test_a_column_of_another_length_is_refused(field, change):
    """One byte more or less than T times the shape."""
    fields = dict(encode_trajectory(make()))
    fields[field] = fields[field] + b"\0" if change > 0 else fields[field][:-1]
    with pytest.raises(WireFormatError, match=field.decode()):
        decode_trajectory(fields, SPEC)


COLS = orjson.loads(dict(encode_trajectory(make()))[b"h"])["cols"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": 2}, "format 2"),
        ({"v": 2, "cols": 7}, "format 2"),
        ({"codec": "pb"}, "codec 'pb'"),
        ({"steps": 4}, "obs"),
        ({"steps": 0}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": None}, "steps"),
        ({"steps": 1 << 63}, "steps"),
        ({"end": "done"}, "done"),
        ({"episode": -1}, "episode"),
        ({"offset": 1 << 53}, "offset"),
        ({"behavior": []}, "covers 0 of 5"),
        ({"behavior": [[1, "t", 4]]}, "covers 4 of 5"),
        ({"behavior": [[1, "t", (1 << 53) - 1]] * 2}, "covers"),
        ({"behavior": [[0, "t", 5]]}, "impossible"),
        ({"behavior": [[1, "", 5]]}, "impossible"),
        ({"behavior": [[1, "a b", 5]]}, "parse"),
        ({"behavior": [[1, "ab\n", 5]]}, "parse"),
        ({"behavior": [[1, "a" * 129, 5]]}, "parse"),
        ({"behavior": [[1, "t", 5, 0]]}, "parse"),
        ({"cols": {**COLS, "obs": ["<f8", [3]]}}, "obs"),
        ({"cols": {**COLS, "obs": ["O", [3]]}}, "obs"),
        ({"cols": {**COLS, "obs": ["<f4", [4]]}}, "obs"),
        ({"cols": {**COLS, "obs": ["<f4", [-3]]}}, "obs"),
        ({"cols": {**COLS, "obs": ["<f4", [1 << 62, 1 << 62]]}}, "obs"),
        ({"cols": {**COLS, "action": ["<i8", [1]]}}, "action"),
        ({"cols": {**COLS, "mask": ["|u1", [5]]}}, "mask"),
        ({"cols": {**COLS, "value": ["<f4", []]}}, "value"),
        ({"cols": {"obs": ["<f4", [3]]}}, "action"),
        ({"final_obs": ["<f4", [2]]}, "final"),
        ({"final_mask": ["|u1", [5]]}, "final mask"),
        ({"final_mask": ["<f4", [4]]}, "final mask"),
        ({"final_mask": ["|u1", []]}, "final mask"),
        ({"end": "terminated", "final_obs": None}, "no final observation that it is for"),
    ],
)
def test_a_header_that_contradicts_the_spec_or_itself_is_refused_by_name(changes, message):
    """Every header key has its own refusal."""
    with pytest.raises(WireFormatError, match=message):
        decode_trajectory(fields_with_header(**changes), SPEC)


def test_unknown_header_keys_and_entry_fields_are_ignored():
    """A newer agent may add what an older worker need not know."""
    fields = fields_with_header(note={"deep": [1]})
    fields[b"agent_id"] = b"a"
    assert_same_trajectory(make(), decode_trajectory(fields, SPEC))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "rewards", "log_probs", "final_observation"])
def test_values_that_are_not_finite_are_refused(name, bad):
    """One NaN in a batch would poison every weight."""
    array = getattr(make(), name).copy()
    array.reshape(-1)[-1] = bad
    with pytest.raises(WireFormatError, match="not finite"):
        decode_trajectory(dict(encode_trajectory(make(**{name: array}))), SPEC)


def test_the_largest_finite_values_are_accepted():
    """The finite check does not confuse large with infinite."""
    huge = np.full((5, 3), np.finfo(np.float32).max, np.float32)
    trajectory = make(observations=huge)
    assert_same_trajectory(trajectory, decode_trajectory(dict(encode_trajectory(trajectory)), SPEC))


@pytest.mark.parametrize("action", [-1, 4, 1 << 62, -(1 << 63)])
def test_actions_outside_of_the_space_are_refused(action):
    """They would index out of the logits, or worse, from their end."""
    actions = np.array([0, action, 0, 0, 0])
    with pytest.raises(WireFormatError, match="outside"):
        decode_trajectory(dict(encode_trajectory(make(actions=actions, masks=None))), SPEC)


def test_masks_must_allow_the_action_taken():
    """Which also refuses rows that forbid everything."""
    masks = np.ones((5, 4), np.bool_)
    masks[1, 1] = False
    with pytest.raises(WireFormatError, match="mask forbids"):
        decode_trajectory(dict(encode_trajectory(make(masks=masks))), SPEC)
    masks[1] = False
    with pytest.raises(WireFormatError, match="mask forbids"):
        decode_trajectory(dict(encode_trajectory(make(masks=masks))), SPEC)


@pytest.mark.parametrize("name", ["mask", "final_mask"])
def test_mask_bytes_other_than_0_and_1_are_refused(name):
    """A numpy bool of value 2 is undefined behaviour in waiting."""
    fields = dict(encode_trajectory(make()))
    fields[name.encode()] = b"\2" + fields[name.encode()][1:]
    with pytest.raises(WireFormatError, match=f"'{name}' holds something else"):
        decode_trajectory(fields, SPEC)


def test_log_probs_may_exceed_zero_by_rounding_only():
    """A probability above 1 means a broken agent."""
    almost = make(log_probs=np.full(5, 9e-7, np.float32))
    decode_trajectory(dict(encode_trajectory(almost)), SPEC)
    above = make(log_probs=np.full(5, 2e-6, np.float32))
    with pytest.raises(WireFormatError, match="above 0"):
        decode_trajectory(dict(encode_trajectory(above)), SPEC)


def test_each_limit_is_enforced_before_anything_is_decoded():
    """Entry bytes, header bytes and steps, at the limit and one beyond."""
    fields = dict(encode_trajectory(make()))
    size = sum(len(k) + len(v) for k, v in fields.items())
    exact = WireLimits(max_entry_bytes=size, max_steps=5, max_header_bytes=len(fields[b"h"]))
    decode_trajectory(fields, TrajectorySpec(3, FOUR, exact))
    for name in ("max_entry_bytes", "max_steps", "max_header_bytes"):
        limits = replace(exact, **{name: getattr(exact, name) - 1})
        with pytest.raises(WireLimitError):
            decode_trajectory(fields, TrajectorySpec(3, FOUR, limits))


def test_a_bomb_of_brackets_in_the_header_is_refused():
    """Deep nesting ends in our error, not in a RecursionError."""
    for opening in (b'{"x":' + b"[" * 60_000, b"[" * 60_000, b'{"x":' * 12_000):
        fields = {**dict(encode_trajectory(make())), b"h": opening}
        with pytest.raises(WireFormatError, match="parse"):
            decode_trajectory(fields, SPEC)


@pytest.mark.parametrize(
    "changes",
    [
        {"observations": np.zeros((4, 3), np.float32)},
        {"observations": np.zeros(5, np.float32)},
        {"rewards": np.zeros(4, np.float32)},
        {"rewards": np.zeros((5, 1), np.float32)},
        {"log_probs": np.zeros(6, np.float32)},
        {"masks": np.ones((4, 4), np.bool_)},
        {"masks": np.ones(5, np.bool_)},
        {"final_observation": np.zeros(2, np.float32)},
        {"final_mask": np.ones(5, np.bool_)},
        {"final_mask": np.ones((1, 4), np.bool_)},
        {"end": End.TERMINATED, "final_observation": None},
        {"behavior": (BehaviorRun(1, "t", 4),)},
        {"behavior": (BehaviorRun(1, "", 5),)},
        {"actions": np.zeros(0, np.int64)},
    ],
)
def test_arrays_that_do_not_fit_each_other_are_not_encoded(changes):
    """The recorder's mistakes end at the recorder."""
    with pytest.raises(WireFormatError):
        encode_trajectory(make(**changes))
