"""Logits of the application beside the network's: torch's numbers, for every kind of choice."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.policy import Policy, UniformPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from rl4sys_stream.spaces.actions import ActionFormat
from tests.unit.policy.test_mlp import torch_net

F = np.float32
OBS_DIM = 8
SPACES: dict[str, Space] = {
    "many": Discrete(70),
    "factors": MultiDiscrete((3, 1, 4)),
    "chance_of_factors": MultiDiscrete((3, 4)),
    "bits": MultiBinary(3),
}
KINDS = ("discrete", "many", "factors", "bits", "items", "chance", "chance_of_factors")


def case(kind: str, seed: int) -> tuple[Policy, ActionFormat]:
    """What acts, and on what."""
    if kind == "items":
        spec = ClientSpec(
            observation_space=Box((OBS_DIM // 2, 2)),
            action_space=Discrete(OBS_DIM // 2),
            network=NetworkSpec(hidden_sizes=(8,), per_item=True),
        )
        weights = torch_net(seed, 2, (8,), 1, "tanh")[1]
        return build_policy(spec, weights, BehaviorExtras(), 1, "t"), spec.actions
    space = SPACES.get(kind, Discrete(5))
    if kind.startswith("chance"):
        return UniformPolicy(ActionFormat.of(space)), ActionFormat.of(space)
    spec = ClientSpec(
        observation_space=Box((OBS_DIM,)),
        action_space=space,
        network=NetworkSpec(hidden_sizes=(8,)),
    )
    weights = torch_net(seed, OBS_DIM, (8,), spec.actions.choices, "tanh")[1]
    return build_policy(spec, weights, BehaviorExtras(), 1, "t"), spec.actions


def some_allowed(rng: np.random.Generator, actions: ActionFormat) -> np.ndarray:
    """Bool [choices], at least one of each choice."""
    mask, start = rng.random(actions.choices) < 0.5, 0
    for n in actions.nvec:
        mask[start + rng.integers(n)] = True
        start += n
    return mask


@settings(deadline=None)  # the first call of torch takes its time
@given(st.sampled_from(KINDS), st.integers(0, 999), st.booleans(), st.sampled_from([0.1, 3.0, 100]))
def test_acting_equals_torch_on_the_sum_of_both_logits(kind, seed, masked, size):
    """Added before the mask: the log-probability is the one that the learner will find."""
    rng = np.random.default_rng(seed)
    policy, actions = case(kind, seed)
    obs = rng.normal(0, 2, OBS_DIM).astype(F)
    prior = rng.normal(0, size, actions.choices).astype(F)
    before = prior.copy()
    mask = some_allowed(rng, actions) if masked else None
    logits = torch.from_numpy(policy.outputs(obs[None])[0]) + torch.from_numpy(prior)
    if mask is not None:
        logits = logits.masked_fill(~torch.from_numpy(mask), -torch.inf)
    parts = [
        torch.log_softmax(part.double(), 0) for part in torch.split(logits, list(actions.nvec))
    ]
    drawn = policy.act(obs, mask, rng.random, prior)
    best = policy.greedy(obs, mask, prior)
    for action, log_prob in (drawn, best):
        choices = np.atleast_1d(np.asarray(action)).tolist()
        wanted = sum(float(part[a]) for part, a in zip(parts, choices, strict=True))
        assert log_prob == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert best[1] == pytest.approx(sum(float(part.max()) for part in parts), rel=1e-4, abs=1e-4)
    assert (prior == before).all()


def test_before_any_model_chance_follows_the_prior():
    """The application begins at its own rule, and says with which probability it did."""
    policy = UniformPolicy(ActionFormat.of(Discrete(3)))
    prior, draw = np.log(np.array([0.1, 0.3, 0.6], F)), random.Random(0).random
    found = [policy.act(np.zeros(1, F), None, draw, prior) for _ in range(4000)]
    shares = np.bincount([int(a) for a, _ in found]) / 4000
    assert shares == pytest.approx([0.1, 0.3, 0.6], abs=0.03)
    assert {round(p, 5) for _, p in found} == {round(math.log(p), 5) for p in (0.1, 0.3, 0.6)}
    assert policy.greedy(np.zeros(1, F), None, prior)[0] == 2
    assert policy.greedy(np.zeros(1, F), np.array([True, True, False]), prior)[0] == 1
