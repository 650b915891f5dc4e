"""Whatever the bytes are, decoding ends in a value or a WireError, never in anything else."""

import contextlib
import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rl4sys_stream.errors import WireError
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.diff import apply_diff, encode_diff
from rl4sys_stream.wire.snapshot import Weights, decode_snapshot, encode_snapshot
from rl4sys_stream.wire.trajectory import (
    TrajectorySpec,
    decode_address,
    decode_trajectory,
    encode_trajectory,
)
from tests.unit.wire.strategies import assert_same_trajectory, damaged, formats, with_field
from tests.unit.wire.test_trajectory import SPEC, make

fuzz = partial(settings, deadline=None, suppress_health_check=list(HealthCheck))

BASE = Weights.from_tensors({
    "w": np.random.default_rng(0).normal(0, 0.1, (20, 5)).astype(np.float32),
    "b": np.zeros(5, np.float32),
})  # fmt: skip
NEW = Weights(BASE.layout, BASE.flat + np.float32(1e-3))
SNAPSHOT, DIFF = encode_snapshot(BASE), encode_diff(BASE, NEW)
FIELDS = dict(encode_trajectory(make(priors=np.ones((5, 4), np.float32))))
HEADER: dict[str, Any] = json.loads(FIELDS[b"h"])
NAMES = sorted(FIELDS)
GUIDED = replace(SPEC, priors=True)

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["<f4", "<i8", "|u1", "O", "terminated", "obs", 5, 3]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def decode(fields: dict[bytes, bytes], spec: TrajectorySpec = GUIDED) -> None:
    """Decode; what does decode must keep its promises, so it encodes and decodes again."""
    with contextlib.suppress(WireError):
        trajectory = decode_trajectory(fields, spec)
        again = decode_trajectory(dict(encode_trajectory(trajectory)), spec)
        assert_same_trajectory(trajectory, again)
        assert np.isfinite(trajectory.observations).all()
        assert sum(run.steps for run in trajectory.behavior) == len(trajectory.actions)


@fuzz(max_examples=1000)
@given(st.data(), st.sampled_from(NAMES))
def test_damaged_trajectories(data, name):
    """One field of a valid entry with bytes changed, removed, inserted or cut."""
    decode(with_field(FIELDS, name, data.draw(damaged(FIELDS[name]))))


@fuzz(max_examples=600)
@given(st.data(), st.sampled_from([*HEADER, "extra"]), ANY_JSON)
def test_headers_with_any_json_in_any_place(data, key, value):
    """Well-formed JSON of the wrong meaning, at the top or within the columns."""
    header = {**HEADER, key: value}
    if key == "cols" and data.draw(st.booleans()):
        column = data.draw(st.sampled_from(sorted(HEADER["cols"])))
        header["cols"] = {**HEADER["cols"], column: value}
    text = json.dumps(header).encode()  # the standard library's writes NaN and huge integers
    decode(with_field(FIELDS, b"h", text))


@fuzz(max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES) | st.binary(max_size=8), st.binary(max_size=64)))
def test_entries_of_random_fields(fields):
    """Nothing of the format is left."""
    decode(fields)
    with contextlib.suppress(WireError):
        decode_address(fields)


@fuzz(max_examples=300)
@given(st.integers(1, 8), formats())
@example(1 << 62, ActionFormat.of(Discrete(1 << 20)))
@example(1 << 62, ActionFormat.of(Box((1 << 10, 1 << 10))))
def test_entries_of_another_client(obs_dim, actions):
    """A valid entry against every other spec, the largest included."""
    decode(FIELDS, TrajectorySpec(obs_dim, actions, priors=True))


@fuzz(max_examples=1000)
@given(damaged(SNAPSHOT))
def test_damaged_snapshots(data):
    """Only the untouched weights may come out."""
    with contextlib.suppress(WireError):
        assert decode_snapshot(data, max_parameters=1000).flat.tobytes() == BASE.flat.tobytes()


@fuzz(max_examples=1000)
@given(damaged(DIFF))
def test_damaged_diffs(data):
    """Only the published weights may come out."""
    with contextlib.suppress(WireError):
        assert apply_diff(BASE, data).flat.tobytes() == NEW.flat.tobytes()


@fuzz(max_examples=500)
@given(st.binary(max_size=200))
def test_random_bytes_behind_valid_headers(data):
    """Past the magic and the digests, into the byte planes."""
    for frame, prefix in ((SNAPSHOT, 28 + len(BASE.layout.to_json())), (DIFF, 40)):
        for garbage in (data, frame[:prefix] + data):
            with contextlib.suppress(WireError):
                decode_snapshot(garbage, max_parameters=1000)
            with contextlib.suppress(WireError):
                apply_diff(BASE, garbage)
