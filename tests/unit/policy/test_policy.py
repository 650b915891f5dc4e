"""Whole policies: built from a published model, or uniform before there is one."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.errors import (
    MaskError,
    NonFiniteError,
    ObservationError,
    WireFormatError,
)
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.policy import ModelPolicy, Policy, UniformPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.snapshot import Weights
from tests.unit.policy.test_mlp import normalization, torch_net

SPEC = ClientSpec(
    observation_space=Box((2, 4)),
    action_space=Discrete(4),
    network=NetworkSpec(hidden_sizes=(16, 16)),
)
LARGEST = math.nextafter(1.0, 0.0)


def make(seed: int = 0, extras: BehaviorExtras | None = None) -> ModelPolicy:
    """A random model of `SPEC`."""
    _, weights = torch_net(seed, 8, (16, 16), 4, "tanh")
    return build_policy(SPEC, weights, extras or BehaviorExtras(), 7, "3:ab")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_acting_equals_torch_end_to_end(activation, normalised, masked):
    """From the observation to the log-probability of what was chosen, to 1e-5."""
    rng = np.random.default_rng(3)
    net, weights = torch_net(3, 8, (16, 16), 4, activation)
    spec = ClientSpec(
        observation_space=Box((8,)),
        action_space=Discrete(4),
        network=NetworkSpec(hidden_sizes=(16, 16), activation=activation),
    )
    norm = normalization(rng, 8) if normalised else None
    policy: Policy = build_policy(spec, weights, BehaviorExtras(norm), 1, "t")
    for _ in range(200):
        obs = rng.normal(0, 2, 8).astype(np.float32)
        mask = np.array([True, False, rng.random() < 0.5, True]) if masked else None
        x = torch.from_numpy(obs)
        if norm is not None:
            x = (x - torch.tensor(norm.mean)) * torch.tensor(norm.scale)
            x = x.clamp(-norm.clip, norm.clip)
        with torch.no_grad():
            logits = net(x)
        if mask is not None:
            logits = logits.masked_fill(~torch.from_numpy(mask), -torch.inf)
        expected = torch.distributions.Categorical(logits=logits).logits.numpy()
        for action, log_prob in (policy.act(obs, mask, rng.random), policy.greedy(obs, mask)):
            assert abs(log_prob - expected[action]) < 1e-5
        assert policy.greedy(obs, mask)[0] == expected.argmax()


def act(
    policy: Policy, obs: NDArray[np.float32], mask: NDArray[np.bool_] | None, uniform: float
) -> tuple[int, float]:
    """A decision for one integer, by one given number."""
    action, log_prob = policy.act(obs, mask, lambda: uniform)
    assert isinstance(action, int)
    return action, log_prob


def test_a_policy_says_which_model_it_is():
    """Every step is recorded under this version and token."""
    assert (make().version, make().token) == (7, "3:ab")
    assert make().outputs(np.zeros((3, 8), np.float32)).shape == (3, 4)


def test_the_same_uniform_number_gives_the_same_action():
    """The only randomness is the caller's."""
    policy, obs = make(), np.ones(8, np.float32)
    for u in (0.0, 0.3, LARGEST):
        assert act(policy, obs, None, u) == act(policy, obs, None, u)
    assert len({act(policy, obs, None, float(u))[0] for u in np.linspace(0, LARGEST, 50)}) > 1


@pytest.mark.parametrize(
    "spec",
    [
        ClientSpec(observation_space=Box((9,)), action_space=Discrete(4), network=SPEC.network),
        ClientSpec(observation_space=Discrete(4), action_space=Discrete(4), network=SPEC.network),
        ClientSpec(observation_space=Box((8,)), action_space=Discrete(5), network=SPEC.network),
        ClientSpec(observation_space=Box((8,)), action_space=Discrete(4)),
    ],
)
def test_a_model_for_another_client_is_refused(spec):
    """Other observations, other actions, another network."""
    _, weights = torch_net(0, 8, (16, 16), 4, "tanh")
    with pytest.raises(WireFormatError):
        build_policy(spec, weights, BehaviorExtras(), 1, "t")


def test_a_model_that_acts_in_an_unknown_way_is_refused():
    """A head for other actions than the client has."""
    _, weights = torch_net(0, 8, (16, 16), 4, "tanh")
    with pytest.raises(WireFormatError, match="log_std"):
        build_policy(SPEC, weights, BehaviorExtras(head="gaussian"), 1, "t")
    bad = Weights(weights.layout, np.full(weights.layout.size, np.nan, np.float32))
    with pytest.raises(NonFiniteError):
        build_policy(SPEC, bad, BehaviorExtras(), 1, "t")


def make_weights() -> Weights:
    """Weights of `SPEC`."""
    return torch_net(0, 8, (16, 16), 4, "tanh")[1]


def test_observations_of_another_shape_or_absurd_size_are_refused():
    """As the application's mistake, not as numpy's."""
    policy = make()
    for shape in ((7,), (9,), (1, 8), (2, 4), ()):
        with pytest.raises(ObservationError, match="shape"):
            policy.act(np.zeros(shape, np.float32), None, lambda: 0.5)
        with pytest.raises(ObservationError, match="shape"):
            policy.greedy(np.zeros(shape, np.float32), None)
    # ReLU passes infinities on, and the next layer subtracts them from each other.
    spec = replace(SPEC, network=NetworkSpec(hidden_sizes=(16, 16), activation="relu"))
    steep = make_weights().flat * np.float32(100)
    policy = build_policy(spec, Weights(make_weights().layout, steep), BehaviorExtras(), 1, "t")
    huge = np.full(8, np.finfo(np.float32).max, np.float32)
    with pytest.raises(ObservationError, match="scale"):
        policy.act(huge, None, lambda: 0.5)


def test_policies_cannot_be_changed():
    """One reference read is all the locking that the decision path has."""
    policy = make()
    with pytest.raises(AttributeError):
        policy.version = 8  # type: ignore[misc]
    with pytest.raises(AttributeError):
        policy.network.activation = "relu"  # type: ignore[misc]


def test_many_threads_act_with_one_policy_as_one_thread_does():
    """No scratch memory is shared."""
    rng = np.random.default_rng(0)
    policy = make(extras=BehaviorExtras(normalization(rng, 8)))
    observations = rng.normal(0, 1, (500, 8)).astype(np.float32)
    uniforms = rng.random(500).tolist()
    mask = np.array([True, True, False, True])

    def play() -> list[tuple[int, float]]:
        return [act(policy, o, mask, u) for o, u in zip(observations, uniforms, strict=True)]

    expected, results = play(), []
    threads = [threading.Thread(target=lambda: results.append(play())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


def test_the_uniform_policy_is_uniform_and_says_so():
    """Over all actions, or over the allowed ones, with the true log-probability."""
    policy: Policy = UniformPolicy(ActionFormat.of(Discrete(4)))
    obs = np.zeros(8, np.float32)
    grid = [(i + 0.5) / 400 for i in range(400)]
    drawn = [act(policy, obs, None, u) for u in grid]
    assert np.bincount([a for a, _ in drawn]).tolist() == [100] * 4
    assert {p for _, p in drawn} == {-math.log(4)}
    mask = np.array([False, True, False, True])
    drawn = [act(policy, obs, mask, u) for u in [*grid, 0.0, LARGEST, 1.0]]
    assert {a for a, _ in drawn} == {1, 3}
    assert {p for _, p in drawn} == {-math.log(2)}
    assert [a for a, _ in drawn].count(1) == 201
    assert policy.greedy(obs, mask) == (1, -math.log(2))
    assert (policy.version, policy.token) == (0, "")
    assert policy.outputs(np.zeros((3, 8), np.float32)).tolist() == [[0.0] * 4] * 3
    for bad in (np.zeros(4, np.bool_), np.ones(5, np.bool_)):
        with pytest.raises(MaskError):
            act(policy, obs, bad, 0.5)


def test_a_uniform_policy_over_one_action_is_certain():
    """Log-probability 0, not a rounding error."""
    assert act(
        UniformPolicy(ActionFormat.of(Discrete(1))), np.zeros(1, np.float32), None, LARGEST
    ) == (
        0,
        0.0,
    )
