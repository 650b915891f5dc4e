"""Policies built from published models, one for each head: torch's numbers, and what misfits."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.errors import MaskError, NonFiniteError, ObservationError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras, HeadName
from rl4sys_stream.policy.heads import LOG_STD_LIMIT
from rl4sys_stream.policy.mlp import LOG_STD
from rl4sys_stream.policy.policy import ModelPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from rl4sys_stream.wire.snapshot import Weights
from tests.unit.policy.test_heads import log_density
from tests.unit.policy.test_mlp import normalization, torch_net

F = np.float32
HIDDEN = (16, 8)
LEVERS = Box((3,), (-1.0, 0.0, -2.0), (1.0, 5.0, 2.0))
LOG_STDS = np.array([-1.0, 0.0, 0.25], F)

CASES: list[tuple[HeadName, Space, int]] = [
    ("categorical", Discrete(4), 4),
    ("categorical", MultiDiscrete((3, 1, 2)), 6),
    ("categorical", MultiBinary(3), 6),
    ("epsilon_greedy", Discrete(4), 4),
    ("gaussian", LEVERS, 3),
    ("gaussian", Box((1, 3)), 3),
    ("state_gaussian", LEVERS, 6),
]
"""Every head, a space that it chooses from, and the outputs that it takes."""


def spec(space: Space, *, squash: bool = False) -> ClientSpec:
    """A client with eight inputs."""
    network = NetworkSpec(hidden_sizes=HIDDEN, activation="relu", squash_output=squash)
    return ClientSpec(observation_space=Box((8,)), action_space=space, network=network)


def extras(head: HeadName, **more: Any) -> BehaviorExtras:
    """Of a model with that head."""
    return BehaviorExtras(epsilon=0.2 if head == "epsilon_greedy" else None, head=head, **more)


def model(head: HeadName, outputs: int, seed: int = 0) -> tuple[torch.nn.Sequential, Weights]:
    """A random network in torch, and as the learner publishes it."""
    net, weights = torch_net(seed, 8, HIDDEN, outputs, "relu")
    if head == "gaussian":
        weights = Weights.from_tensors({**weights.tensors(), LOG_STD: LOG_STDS[:outputs]})
    return net, weights


def torch_log_prob(
    policy: ModelPolicy,
    action: Any,
    outputs: NDArray[np.float64],
    head: HeadName,
    client: ClientSpec,
) -> float:
    """Of `action` by torch's distributions over the network's outputs."""
    actions = client.actions
    if actions.continuous:
        means, log_std = outputs[: actions.dim], LOG_STDS
        if head == "state_gaussian":
            log_std = np.clip(outputs[actions.dim :], -20, 2).astype(F)
        return log_density(action, means.tolist(), log_std.tolist(), squash=actions.squash)
    if head == "epsilon_greedy":
        return math.log(0.2 / 4 + 0.8 * (int(action) == int(outputs.argmax())))
    total, start = 0.0, 0
    for choice, n in zip(np.atleast_1d(action).tolist(), actions.nvec, strict=True):
        total += torch.log_softmax(torch.from_numpy(outputs[start : start + n]), 0)[choice].item()
        start += n
    return total


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize(("head", "space", "outputs"), CASES)
def test_acting_equals_torch_from_the_observation_to_the_log_probability(
    head, space, outputs, squash, normalised
):
    """For every head: what is logged is what the learner finds again."""
    if squash and (not isinstance(space, Box) or space.low is None):
        squash = False
    rng, client = np.random.default_rng(3), spec(space, squash=squash)
    net, weights = model(head, outputs)
    norm = normalization(rng, 8) if normalised else None
    policy = build_policy(client, weights, extras(head, normalization=norm), 7, "3:ab")
    assert (policy.version, policy.token) == (7, "3:ab")
    for _ in range(50):
        obs = rng.normal(0, 2, 8).astype(F)
        x = torch.from_numpy(obs)
        if norm is not None:
            x = (x - torch.tensor(norm.mean)) * torch.tensor(norm.scale)
            x = x.clamp(-norm.clip, norm.clip)
        with torch.no_grad():
            expected = net(x).numpy()
        assert np.abs(policy.outputs(obs[None])[0] - expected).max() < 1e-5
        for action, log_prob in (policy.act(obs, None, rng.random), policy.greedy(obs, None)):
            wanted = torch_log_prob(policy, action, expected.astype(np.float64), head, client)
            assert log_prob == pytest.approx(wanted, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize(("head", "space", "outputs"), CASES)
def test_the_same_numbers_give_the_same_action_by_every_head(head, space, outputs):
    """The only randomness is the caller's."""
    policy = build_policy(spec(space), model(head, outputs)[1], extras(head), 1, "t")
    obs = np.ones(8, F)

    def play() -> list[tuple[object, float]]:
        draw = random.Random(9).random
        drawn = [policy.act(obs, None, draw) for _ in range(30)]
        return [(np.asarray(action).tolist(), log_prob) for action, log_prob in drawn]

    first = play()
    assert first == play()
    assert len({str(action) for action, _ in first}) > 1


@pytest.mark.parametrize(
    ("head", "space", "outputs", "words"),
    [
        ("categorical", LEVERS, 3, "'categorical', which cannot choose from"),
        ("epsilon_greedy", LEVERS, 3, "'epsilon_greedy', which cannot choose from"),
        ("epsilon_greedy", MultiDiscrete((2, 2)), 4, "'epsilon_greedy', which cannot choose from"),
        ("epsilon_greedy", MultiBinary(2), 4, "'epsilon_greedy', which cannot choose from"),
        ("gaussian", Discrete(3), 3, "'gaussian', which cannot choose from"),
        ("gaussian", MultiBinary(2), 3, "'gaussian', which cannot choose from"),
        ("state_gaussian", Discrete(4), 4, "'state_gaussian', which cannot choose from"),
        ("categorical", Discrete(5), 4, "needs 8 and 5"),
        ("categorical", MultiDiscrete((3, 2)), 6, "needs 8 and 5"),
        ("categorical", MultiBinary(3), 3, "needs 8 and 6"),
        ("gaussian", LEVERS, 2, "needs 8 and 3"),
        ("state_gaussian", LEVERS, 3, "needs 8 and 6"),
    ],
)
def test_a_model_that_acts_otherwise_than_the_client_can_is_refused(head, space, outputs, words):
    """Another kind of action, or another number of outputs."""
    with pytest.raises(WireFormatError, match=words):
        build_policy(spec(space), model(head, outputs)[1], extras(head), 1, "t")


def test_the_log_deviations_belong_to_one_head_and_have_one_shape():
    """Missing, of another length, first instead of last, or with a head without use for them."""
    _, plain = model("categorical", 3)
    tensors = plain.tensors()
    wrong: list[tuple[HeadName, Weights]] = [
        ("gaussian", plain),
        ("gaussian", Weights.from_tensors({**tensors, LOG_STD: np.zeros(2, F)})),
        ("gaussian", Weights.from_tensors({**tensors, LOG_STD: np.zeros((1, 3), F)})),
        ("gaussian", Weights.from_tensors({LOG_STD: np.zeros(3, F), **tensors})),
        ("gaussian", Weights.from_tensors({**tensors, "std": np.zeros(3, F)})),
        (
            "state_gaussian",
            Weights.from_tensors(
                {**model("state_gaussian", 6)[1].tensors(), LOG_STD: np.zeros(6, F)}
            ),
        ),
    ]
    for head, weights in wrong:
        with pytest.raises(WireFormatError, match="tensors"):
            build_policy(spec(LEVERS), weights, extras(head), 1, "t")


@pytest.mark.parametrize("bad", [81.0, -81.0, 1e30])
def test_deviations_that_float32_does_not_hold_are_refused_when_the_model_comes(bad):
    """Not at the decision, where the application would meet an error that is not its own."""
    tensors = model("gaussian", 3)[1].tensors()
    for place in range(3):
        log_std = LOG_STDS.copy()
        log_std[place] = bad
        weights = Weights.from_tensors({**tensors, LOG_STD: log_std})
        with pytest.raises(WireFormatError, match="expected -80 to 80"):
            build_policy(spec(LEVERS), weights, extras("gaussian"), 1, "t")
    edge = np.array([-LOG_STD_LIMIT, 0.0, LOG_STD_LIMIT], F)
    build_policy(
        spec(LEVERS), Weights.from_tensors({**tensors, LOG_STD: edge}), extras("gaussian"), 1, "t"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_deviation_that_is_not_finite_is_refused_as_any_weight(bad):
    """Though the network itself does not use it."""
    tensors = {**model("gaussian", 3)[1].tensors(), LOG_STD: np.array([0, bad, 0], F)}
    with pytest.raises(NonFiniteError):
        build_policy(spec(LEVERS), Weights.from_tensors(tensors), extras("gaussian"), 1, "t")


@pytest.mark.parametrize(("head", "space", "outputs"), CASES)
def test_every_policy_refuses_absurd_observations_and_masks_that_are_none(head, space, outputs):
    """As the application's mistake, not as numpy's."""
    client = spec(space)
    policy = build_policy(client, model(head, outputs)[1], extras(head), 1, "t")
    draw = random.Random(0).random
    with pytest.raises(ObservationError, match="shape"):
        policy.act(np.zeros(7, F), None, draw)
    with pytest.raises(ObservationError, match="scale"):
        policy.act(np.full(8, np.finfo(F).max, F), None, draw)
    for mask in (np.zeros(client.actions.choices, np.bool_), np.ones(9, np.bool_)):
        with pytest.raises(MaskError):
            policy.act(np.zeros(8, F), mask, draw)
        with pytest.raises(MaskError):
            policy.greedy(np.zeros(8, F), mask)
