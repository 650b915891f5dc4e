"""Choosing among items in numpy: torch's numbers, whatever order, padding and number of items."""

import random
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.config.spec import Activation
from rl4sys_stream.errors import MaskError, ObservationError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.policy import PerItemPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete
from tests.unit.policy.test_mlp import normalization, torch_net

F = np.float32


def spec(items: int, features: int, **network: object) -> ClientSpec:
    """A client that chooses among `items`."""
    return ClientSpec(
        observation_space=Box((items, features)),
        action_space=Discrete(items),
        network=NetworkSpec(**{"hidden_sizes": (8, 4), "per_item": True, **network}),  # type: ignore[arg-type]
    )


def policy_of(items: int, features: int, seed: int = 0) -> PerItemPolicy:
    """A random one."""
    weights = torch_net(seed, features, (8, 4), 1, "tanh")[1]
    policy = build_policy(spec(items, features), weights, BehaviorExtras(), 7, "3:ab")
    assert isinstance(policy, PerItemPolicy)
    return policy


def random_mask(rng: np.random.Generator, items: int) -> np.ndarray:
    """Bool [items], at least one true."""
    mask = rng.random(items) < 0.5
    mask[rng.integers(items)] = True
    return mask


@settings(deadline=None)  # the first call of torch takes its time
@given(
    items=st.integers(1, 70),
    features=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 9), max_size=2).map(tuple),
    activation=st.sampled_from(get_args(Activation)),
    seed=st.integers(0, 999),
    masked=st.booleans(),
    normalised=st.booleans(),
)
def test_acting_equals_torch_from_the_observation_to_the_log_probability(
    items, features, hidden, activation, seed, masked, normalised
):
    """One network for every row, softmax over those that the mask allows."""
    rng = np.random.default_rng(seed)
    net, weights = torch_net(seed, features, hidden, 1, activation)
    norm = normalization(rng, features) if normalised else None
    client = spec(items, features, hidden_sizes=hidden, activation=activation)
    policy = build_policy(client, weights, BehaviorExtras(norm), 7, "3:ab")
    assert (policy.version, policy.token) == (7, "3:ab")
    obs = rng.normal(0, 2, (items, features)).astype(F)
    mask = random_mask(rng, items) if masked else None
    rows = torch.from_numpy(obs)
    if norm is not None:
        rows = (rows - torch.tensor(norm.mean)) * torch.tensor(norm.scale)
        rows = rows.clamp(-norm.clip, norm.clip)
    with torch.no_grad():
        logits = net(rows)[:, 0]
    assert np.abs(policy.outputs(obs.reshape(1, -1))[0] - logits.numpy()).max() < 1e-5
    if mask is not None:
        logits = logits.masked_fill(~torch.from_numpy(mask), -torch.inf)
    log_probs = torch.log_softmax(logits.double(), 0)
    flat = obs.reshape(-1)
    for action, log_prob in (policy.act(flat, mask, rng.random), policy.greedy(flat, mask)):
        assert log_prob == pytest.approx(float(log_probs[int(action)]), abs=2e-5)
    assert float(log_probs[int(policy.greedy(flat, mask)[0])]) == pytest.approx(
        float(log_probs.max()), abs=2e-5
    )


@given(items=st.integers(1, 50), seed=st.integers(0, 999))
def test_items_in_another_order_are_chosen_with_the_same_probabilities(items, seed):
    """Permutation equivariance: the best item is the best wherever it stands."""
    rng, policy = np.random.default_rng(seed), policy_of(items, 3, seed)
    obs, order = rng.normal(0, 2, (items, 3)).astype(F), rng.permutation(items)
    mask = random_mask(rng, items)
    moved = policy.outputs(obs[order].reshape(1, -1))[0]
    np.testing.assert_allclose(moved, policy.outputs(obs.reshape(1, -1))[0][order], atol=1e-6)
    best, log_prob = policy.greedy(obs.reshape(-1), mask)
    there, same = policy.greedy(obs[order].reshape(-1), mask[order])
    assert order[there] == best
    assert same == pytest.approx(log_prob, abs=1e-6)


@given(items=st.integers(1, 20), padding=st.integers(0, 60), seed=st.integers(0, 999))
def test_padding_changes_nothing_whatever_stands_in_it(items, padding, seed):
    """Neither the drawn item nor its probability, though numpy's and Python's sums differ."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(0, 2, (items, 3)).astype(F)
    padded = np.concatenate([obs, np.full((padding, 3), 1e30, F)])
    mask = np.arange(items + padding) < items
    for share in (0.0, 0.3, 0.8):
        draw = partial(float, share)
        alone, log_prob = policy_of(items, 3).act(obs.reshape(-1), None, draw)
        among, same = policy_of(items + padding, 3).act(padded.reshape(-1), mask, draw)
        assert among == alone
        assert same == pytest.approx(log_prob, abs=1e-6)


def test_what_does_not_fit_is_refused_as_the_applications_mistake():
    """Observations of another number of items, absurd ones, masks that are none."""
    policy, draw = policy_of(4, 3), random.Random(0).random
    with pytest.raises(ObservationError, match=r"\(9,\), the policy takes \(12,\)"):
        policy.act(np.zeros(9, F), None, draw)
    with pytest.raises(ObservationError, match="scale or normalise"):
        policy.act(np.full(12, np.nan, F), None, draw)
    for mask in (np.zeros(4, np.bool_), np.ones(3, np.bool_)):
        with pytest.raises(MaskError):
            policy.act(np.zeros(12, F), mask, draw)
        with pytest.raises(MaskError):
            policy.greedy(np.zeros(12, F), mask)


def test_a_model_of_whole_observations_or_of_another_head_is_refused():
    """The spec says what a network takes in; the tensors must be for it."""
    whole = torch_net(0, 12, (8, 4), 4, "tanh")[1]
    with pytest.raises(WireFormatError, match=r"maps 12 inputs to 4 outputs, .* needs 3 and 1"):
        build_policy(spec(4, 3), whole, BehaviorExtras(), 1, "t")
    one = torch_net(0, 3, (8, 4), 1, "tanh")[1]
    greedy = BehaviorExtras(epsilon=0.1, head="epsilon_greedy")
    with pytest.raises(WireFormatError, match="'epsilon_greedy'; the client's network is per item"):
        build_policy(spec(4, 3), one, greedy, 1, "t")
    norm = normalization(np.random.default_rng(0), 12)
    with pytest.raises(WireFormatError, match="normalises 12 inputs, its network has 3"):
        build_policy(spec(4, 3), one, BehaviorExtras(norm), 1, "t")
