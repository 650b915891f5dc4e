"""This package gives what the vectors say, of those that decode and of those that do not."""

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from rl4sys_stream.broker.control import parse_control
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import (
    DigestError,
    NonFiniteError,
    StreamError,
    WireFormatError,
    WireLimitError,
)
from rl4sys_stream.model_store.notice import follow_notice, read_notice
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.policy import Policy, UniformPolicy, build_policy
from rl4sys_stream.spaces import flatten, space_from_json
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import WireLimits
from rl4sys_stream.wire.frames import apply_any_diff, decode_any_snapshot
from rl4sys_stream.wire.snapshot import TensorLayout, Weights
from rl4sys_stream.wire.trajectory import (
    EntryAddress,
    Trajectory,
    TrajectorySpec,
    decode_address,
    decode_trajectory,
)
from tests.conformance.loading import blob, each, entry_of, flat_of, same_bits

NAMES: dict[type[StreamError], str] = {
    WireFormatError: "format",
    NonFiniteError: "format",
    WireLimitError: "limit",
    DigestError: "digest",
}


def outcome(decode: Callable[[], object], refused: str) -> None:
    """Call `decode`, which must end in the error of that name."""
    with pytest.raises(StreamError) as caught:
        decode()
    assert NAMES[type(caught.value)] == refused, caught.value


def weights_of(described: dict[str, Any]) -> Weights:
    """What a vector describes."""
    layout = TensorLayout.from_json(json.dumps(described["layout"]).encode())
    return Weights(layout, flat_of(described).astype(np.float32))


def assert_weights(found: Weights, expected: dict[str, Any]) -> None:
    """Layout, digests and bits."""
    assert found.layout.digest == expected["layout_digest"]
    assert found.digest() == expected["digest"]
    assert same_bits(found.flat, flat_of(expected))
    assert json.loads(found.layout.to_json()) == expected["layout"]


def trajectory_spec(vector: dict[str, Any]) -> TrajectorySpec:
    """What the vector's client sends."""
    spec = vector["spec"]
    actions = ActionFormat.of(space_from_json(spec["action_space"]))
    limits = WireLimits(**vector["limits"])
    return TrajectorySpec(spec["obs_dim"], actions, limits, priors=spec["priors"])


def content(address: EntryAddress, found: Trajectory) -> dict[str, Any]:
    """A decoded entry as vectors describe one."""
    named = {
        "obs": found.observations,
        "action": found.actions,
        "reward": found.rewards,
        "log_prob": found.log_probs,
        "mask": found.masks,
        "prior": found.priors,
        "final_obs": found.final_observation,
        "final_mask": found.final_mask,
    }
    arrays = {name: None if array is None else array.tolist() for name, array in named.items()}
    return arrays | {
        "agent_id": address.agent_id,
        "seq": address.seq,
        "floor": address.floor,
        "end": found.end.value,
        "behavior": [[run.version, run.token, run.steps] for run in found.behavior],
        "episode": found.episode,
        "offset": found.offset,
        "created_ms": found.created_ms,
    }


@each("trajectories.json")
def test_an_entry_decodes_to_what_was_sent_or_is_refused_by_name(vector):
    """Every value, -0.0 and subnormal numbers included."""
    fields, spec = entry_of(vector), trajectory_spec(vector)

    def decode() -> dict[str, Any]:
        return content(decode_address(fields), decode_trajectory(fields, spec))

    if "refused" in vector:
        outcome(decode, vector["refused"])
    else:
        assert json.dumps(decode(), sort_keys=True) == json.dumps(vector["decodes"], sort_keys=True)


@each("snapshots.json")
def test_a_snapshot_decodes_to_the_published_bits_or_is_refused_by_name(vector):
    """Of both kinds."""
    frame = blob(vector["frame"])

    def decode() -> Weights:
        return decode_any_snapshot(frame, max_parameters=vector["max_parameters"])

    if "refused" in vector:
        outcome(decode, vector["refused"])
    else:
        assert_weights(decode(), vector["decodes"])


@each("diffs.json")
def test_a_diff_leads_to_the_published_bits_or_is_refused_by_name(vector):
    """In every layout; the base stays as it was."""
    base, frame = weights_of(vector["base"]), blob(vector["frame"])

    def decode() -> Weights:
        return apply_any_diff(base, frame)

    if "refused" in vector:
        outcome(decode, vector["refused"])
    else:
        assert_weights(decode(), vector["decodes"])
    assert same_bits(base.flat, flat_of(vector["base"]))


@each("notices.json")
def test_a_notice_is_followed_passed_over_or_refused_by_name(vector):
    """By a reader that acts by the version that the vector says."""
    held = vector["held"]
    model = Model(
        held["version"], held["token"], held["lineage"], weights_of(held), BehaviorExtras()
    )

    def follow() -> Model | None:
        notice = read_notice(blob(vector["message"]))
        name = ("conformance", vector["name"], notice.lineage, notice.version, notice.token)
        return follow_notice(notice, model, name)

    if "refused" in vector:
        outcome(follow, vector["refused"])
        return
    found = follow()
    if "looks" in vector:
        assert found is None
        return
    assert found is not None
    assert {
        "version": found.version,
        "token": found.token,
        "digest": found.weights.digest(found.extras.to_bytes()),
    } == vector["follows"]


@each("control.json")
def test_control_selects_the_agents_that_it_means(vector):
    """Patterns, shares, and the first rule that holds."""
    fields = {name.encode(): base64.b64decode(data) for name, data in vector["fields"].items()}
    if "refused" in vector:
        outcome(lambda: parse_control(fields), vector["refused"])
        return
    control = parse_control(fields)
    found = {agent: msgspec.to_builtins(control.directive(agent)) for agent in vector["directives"]}
    assert found == vector["directives"]


def policy_of(vector: dict[str, Any]) -> Policy:
    """What acts, a model or chance."""
    spec = ClientSpec.from_json(vector["spec"])
    if "flat" not in vector:
        return UniformPolicy(spec.actions)
    extras = BehaviorExtras.from_bytes(vector["extras"].encode())
    return build_policy(spec, weights_of(vector), extras, 1, "1:a")


def close(found: Any, expected: Any) -> bool:
    """Equal as far as float32 goes, shapes apart."""
    return bool(np.allclose(np.ravel(np.asarray(found)), np.ravel(expected), rtol=2e-5, atol=2e-6))


@each("policies.json")
def test_a_model_acts_as_the_vector_says_or_must_not_act(vector):
    """Outputs, and by the same numbers the same action with the same log-probability."""
    if "refused" in vector:
        outcome(lambda: policy_of(vector), vector["refused"])
        return
    policy = policy_of(vector)
    actions = ClientSpec.from_json(vector["spec"]).actions
    for case in vector["cases"]:
        obs = np.array(case["observation"], np.float32)
        mask = None if case["mask"] is None else np.array(case["mask"], np.bool_)
        prior = None if case["prior"] is None else np.array(case["prior"], np.float32)
        assert close(policy.outputs(obs[None])[0], case["outputs"])
        raw, log_prob = policy.act(obs, mask, iter(case["uniforms"]).__next__, prior)
        assert close(raw, case["raw"])
        assert math.isclose(log_prob, case["log_prob"], rel_tol=2e-5, abs_tol=2e-5)
        assert close(actions.applied(raw), case["applied"])
        best, log_prob = policy.greedy(obs, mask, prior)
        assert close(best, case["best"])
        assert math.isclose(log_prob, case["best_log_prob"], rel_tol=2e-5, abs_tol=2e-5)


@each("flattening.json")
def test_observations_flatten_in_the_order_that_the_vector_says(vector):
    """Of every kind of space."""
    space = space_from_json(vector["space"])
    assert flatten(space, vector["observation"]).tolist() == vector["flattened"]
