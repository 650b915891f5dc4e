"""Tasks with a known optimum, acted by the exported policy, trained in process."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.config import ClientSpec, NetworkSpec, PPOParameters
from rl4sys_stream.policy.policy import ModelPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory
from tests.unit.algorithms.samples import changed

N = 4
PARAMETERS = PPOParameters(
    n_steps=256, batch_size=64, n_epochs=6, learning_rate=3e-3, gamma=0.5, ent_coef=0.01
)
SPEC = ClientSpec(
    observation_space=Box((N,)),
    action_space=Discrete(N),
    network=NetworkSpec(hidden_sizes=(32,)),
)
Reward = Callable[[int, int], float]


def policy_of(ppo: PPO) -> ModelPolicy:
    """What an agent would act with."""
    export = ppo.export()
    return build_policy(SPEC, export.weights, export.extras, 1, "token")


def play(
    policy: ModelPolicy, reward: Reward, rng: np.random.Generator, *, masked: bool, lag: int
) -> Sample:
    """64 steps of a world in which a random one-hot symbol is shown, cut with the world going on.

    Where masked, two of the actions are forbidden at random, never the one named by the symbol.
    """
    symbols = rng.integers(0, N, 65)
    observations = np.eye(N, dtype=np.float32)[symbols]
    masks: NDArray[np.bool_] | None = None
    if masked:
        masks = np.ones((64, N), np.bool_)
        for row, symbol in zip(masks, symbols, strict=False):
            row[rng.permutation([a for a in range(N) if a != symbol])[:2]] = False
    chosen = [
        policy.act(observations[t], None if masks is None else masks[t], rng.random)
        for t in range(64)
    ]
    rewards = [reward(int(s), int(a)) for s, (a, _) in zip(symbols, chosen, strict=False)]
    trajectory = Trajectory(
        observations=observations[:64],
        actions=np.array([int(action) for action, _ in chosen]),
        rewards=np.array(rewards, np.float32),
        log_probs=np.array([log_prob for _, log_prob in chosen], np.float32),
        masks=masks,
        final_observation=observations[64],
        end=End.CUT,
        behavior=(BehaviorRun(1, "token", 64),),
        episode=0,
        offset=0,
        created_ms=0,
    )
    return Sample(trajectory, lag)


def train(
    seed: int,
    reward: Reward,
    updates: int,
    *,
    masked: bool = False,
    lag: int = 0,
    **changes: object,
) -> ModelPolicy:
    """The policy after `updates`, each on data of the policy `lag` updates before."""
    ppo = PPO(SPEC, changed(PARAMETERS, **changes), seed=seed)
    rng = np.random.default_rng(seed)
    policies = [policy_of(ppo)] * (lag + 1)
    for _ in range(updates):
        while not ppo.ready():
            ppo.observe(play(policies[0], reward, rng, masked=masked, lag=lag))
        ppo.update()
        policies = [*policies[1:], policy_of(ppo)]
    return policies[-1]


def probabilities(policy: ModelPolicy) -> NDArray[np.float64]:
    """[symbol, action], without masks."""
    logits = policy.outputs(np.eye(N, dtype=np.float32)).astype(float)
    weights: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def identity(symbol: int, action: int) -> float:
    """1 for repeating the symbol."""
    return float(symbol == action)


def bandit(symbol: int, action: int) -> float:
    """Arms that pay 0, 1/3, 2/3 and 1, whatever is shown."""
    return action / (N - 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_the_identity(seed: int) -> None:
    """The symbol's own action gets at least 95 % of the probability."""
    assert probabilities(train(seed, identity, 20)).diagonal().min() > 0.95


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_the_best_arm(seed: int) -> None:
    """Whatever is shown, the arm that pays 1 gets at least 95 % of the probability."""
    assert probabilities(train(seed, bandit, 20))[:, N - 1].min() > 0.95


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_under_masks(seed: int) -> None:
    """Only ever having seen half of the actions allowed, it still knows the right one."""
    policy = train(seed, identity, 20, masked=True)
    assert probabilities(policy).argmax(axis=1).tolist() == list(range(N))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_from_data_of_older_policies(seed: int) -> None:
    """Two versions behind throughout, corrected by the logged probabilities."""
    assert probabilities(train(seed, identity, 30, lag=2)).diagonal().min() > 0.9


@pytest.mark.parametrize("vtrace", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_from_data_of_much_older_policies(seed: int, vtrace: bool) -> None:
    """Eight versions behind throughout: slower, since all of them share one clip range."""
    assert probabilities(train(seed, identity, 40, lag=8, vtrace=vtrace)).diagonal().min() > 0.95


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_with_normalised_observations(seed: int) -> None:
    """The statistics move while the policies that act still have the older ones."""
    policy = train(seed, identity, 20, normalize_observations=True)
    assert probabilities(policy).diagonal().min() > 0.95
