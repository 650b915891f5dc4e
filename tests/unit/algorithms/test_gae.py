"""Generalised advantage estimation against closed forms and a slow double sum."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rl4sys_stream.algorithms.gae import bootstrap_value, gae
from rl4sys_stream.algorithms.networks import ActorCritic
from rl4sys_stream.algorithms.rollout import make_rollout
from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.errors import UsageError
from rl4sys_stream.wire.trajectory import End
from tests.unit.algorithms.samples import OBS_DIM, f32, mixed_samples


def slow_gae(
    rewards: NDArray[np.float64],
    values: NDArray[np.float64],
    bootstrap: float,
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float64]:
    """Equation 16 as it is printed: each advantage its own sum of discounted errors."""
    following = np.append(values[1:], bootstrap)
    deltas = rewards + gamma * following - values
    return np.array(
        [
            sum((gamma * gae_lambda) ** k * delta for k, delta in enumerate(deltas[t:]))
            for t in range(len(rewards))
        ]
    )


def ones(steps: int, value: float = 1.0) -> NDArray[np.float32]:
    """A float32 [steps] full of `value`."""
    return np.full(steps, value, np.float32)


def test_constant_rewards_without_values_sum_to_a_geometric_series() -> None:
    """A_t = (1 - (γλ)^(T-t)) / (1 - γλ) for rewards of 1 and a critic that says 0."""
    advantages = gae(ones(50), ones(50, 0.0), 0.0, gamma=0.99, gae_lambda=0.95)
    q = 0.99 * 0.95
    expected = (1.0 - q ** np.arange(50, 0, -1)) / (1.0 - q)
    np.testing.assert_allclose(advantages, expected, rtol=1e-6)


def test_a_perfect_critic_leaves_no_advantage_when_the_episode_goes_on() -> None:
    """V = r / (1 - γ) solves an endless constant reward, so a cut loses nothing."""
    value = 1.0 / (1.0 - 0.9)
    advantages = gae(ones(20), ones(20, value), value, gamma=0.9, gae_lambda=0.95)
    np.testing.assert_allclose(advantages, 0.0, atol=1e-5)


def test_the_same_critic_is_disappointed_when_the_episode_terminates() -> None:
    """Nothing follows, so the last step lacks γV."""
    value = 1.0 / (1.0 - 0.9)
    advantages = gae(ones(20), ones(20, value), 0.0, gamma=0.9, gae_lambda=0.95)
    assert advantages[-1] == pytest.approx(-0.9 * value, rel=1e-5)


def test_lambda_one_is_the_discounted_return_less_the_value() -> None:
    """The Monte-Carlo end of the family, bootstrap discounted T - t times."""
    rewards, values = f32([1, 2, 3]), f32([0.5, -1, 2])
    advantages = gae(rewards, values, 10.0, gamma=0.5, gae_lambda=1.0)
    returns = [1 + 1 + 0.75 + 1.25, 2 + 1.5 + 2.5, 3 + 5.0]
    np.testing.assert_allclose(advantages, np.array(returns) - values, rtol=1e-6)


def test_lambda_zero_is_the_one_step_error() -> None:
    """The temporal-difference end of the family."""
    rewards, values = f32([1, 2, 3]), f32([0.5, -1, 2])
    advantages = gae(rewards, values, 10.0, gamma=0.5, gae_lambda=0.0)
    np.testing.assert_allclose(advantages, [1 - 0.5 - 0.5, 2 + 1 + 1, 3 + 5 - 2], rtol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_the_double_sum_of_the_paper(seed: int) -> None:
    """Random rewards, values, bootstrap, discount and λ of random lengths."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 120))
    rewards = rng.standard_normal(steps).astype(np.float32)
    values = rng.standard_normal(steps).astype(np.float32)
    bootstrap, gamma, gae_lambda = rng.standard_normal(), rng.random(), rng.random()
    fast = gae(rewards, values, bootstrap, gamma=gamma, gae_lambda=gae_lambda)
    slow = slow_gae(rewards.astype(float), values.astype(float), bootstrap, gamma, gae_lambda)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-6)


def test_only_a_terminated_trajectory_is_worth_nothing_at_its_end() -> None:
    """A value that came along with a terminated trajectory is not used either."""
    assert bootstrap_value(End.TERMINATED, None) == 0.0
    assert bootstrap_value(End.TERMINATED, 7.0) == 0.0
    assert bootstrap_value(End.TRUNCATED, 7.0) == 7.0
    assert bootstrap_value(End.CUT, 7.0) == 7.0


@pytest.mark.parametrize("end", [End.TRUNCATED, End.CUT])
def test_an_unfinished_trajectory_without_a_final_observation_is_refused(end: End) -> None:
    """Silently bootstrapping from 0 would teach that time limits are disasters."""
    with pytest.raises(UsageError, match="final observation"):
        bootstrap_value(end, None)


def test_each_trajectory_of_a_rollout_is_bootstrapped_alone() -> None:
    """Terminated, cut and truncated parts side by side, against the slow sum for each."""
    drawn = torch.Generator().manual_seed(3)
    networks = ActorCritic(OBS_DIM, 2, NetworkSpec(hidden_sizes=(8,)), drawn)
    trajectories = [sample.trajectory for sample in mixed_samples(5)]
    rollout = make_rollout(trajectories, networks.values, None, gamma=0.97, gae_lambda=0.9)

    def value(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        with torch.no_grad():
            return networks.values(torch.from_numpy(rows)).numpy()[:, 0].astype(float)

    expected = []
    for part in trajectories:
        last = 0.0
        if part.end is not End.TERMINATED:
            assert part.final_observation is not None
            last = float(value(part.final_observation[None])[0])
        rewards = part.rewards.astype(float)
        expected.append(slow_gae(rewards, value(part.observations), last, 0.97, 0.9))
    advantages = np.concatenate(expected)
    np.testing.assert_allclose(rollout.advantages[:, 0], advantages, rtol=1e-4, atol=1e-5)
    values = value(np.concatenate([part.observations for part in trajectories]))
    np.testing.assert_allclose(rollout.returns[:, 0], advantages + values, rtol=1e-4, atol=1e-5)
