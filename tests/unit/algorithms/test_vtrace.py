"""V-trace against closed forms, the sums of the paper, and generalised advantage estimation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl4sys_stream.algorithms.gae import gae
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.algorithms.rollout import Correction, make_rollout
from rl4sys_stream.algorithms.vtrace import VTrace, vtrace
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.samples import f32, make_ppo, mixed_samples, observe_all, with_rewards

Array = NDArray[np.float64]


def slow_returns(
    rewards: Array,
    values: Array,
    bootstrap: float,
    ratios: Array,
    gamma: float,
    gae_lambda: float,
    rho_bar: float,
    c_bar: float,
) -> Array:
    """Equation 1 as it is printed: for each s its own sum over t of products over i."""
    following = np.append(values[1:], bootstrap)
    errors = np.minimum(rho_bar, ratios) * (rewards + gamma * following - values)
    traces = gae_lambda * np.minimum(c_bar, ratios)
    steps = len(rewards)
    return np.array(
        [
            values[s]
            + sum(gamma ** (t - s) * np.prod(traces[s:t]) * errors[t] for t in range(s, steps))
            for s in range(steps)
        ]
    )


def on_policy(rewards: NDArray[np.float32], values: NDArray[np.float32]) -> VTrace:
    """Ratios of 1, and a bootstrap of 10."""
    return vtrace(
        rewards,
        values,
        10.0,
        np.zeros_like(rewards),
        gamma=0.9,
        gae_lambda=0.8,
        rho_bar=1.0,
        c_bar=1.0,
    )


@settings(deadline=None)
@given(steps=st.integers(1, 40), seed=st.integers(0, 1000))
def test_where_nothing_lags_it_is_generalised_advantage_estimation(steps: int, seed: int) -> None:
    """So switching it on changes nothing for agents that keep up."""
    rng = np.random.default_rng(seed)
    rewards, values = f32(rng.standard_normal(steps)), f32(rng.standard_normal(steps))
    found = on_policy(rewards, values)
    advantages = gae(rewards, values, 10.0, gamma=0.9, gae_lambda=0.8)
    assert found.advantages.tolist() == advantages.tolist()
    np.testing.assert_allclose(found.returns, advantages + values, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(
    steps=st.integers(1, 30),
    seed=st.integers(0, 1000),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    c_bar=st.floats(0.1, 2.0),
    wider=st.floats(0.0, 3.0),
)
def test_it_equals_the_sum_of_products_of_the_paper(
    steps: int, seed: int, gamma: float, gae_lambda: float, c_bar: float, wider: float
) -> None:
    """Ratios on both sides of both bounds."""
    rng = np.random.default_rng(seed)
    rewards, values, log_ratios = (f32(rng.standard_normal(steps)) for _ in range(3))
    bounds = {"gamma": gamma, "gae_lambda": gae_lambda, "c_bar": c_bar, "rho_bar": c_bar + wider}
    found = vtrace(rewards, values, 2.0, log_ratios, **bounds)
    ratios = np.exp(log_ratios.astype(float))
    returns = slow_returns(rewards.astype(float), values.astype(float), 2.0, ratios, **bounds)
    np.testing.assert_allclose(found.returns, returns, rtol=1e-4, atol=1e-5)
    # What follows is worth the critic's value, and λ of what v says beyond it.
    later = np.append(returns[1:] - values[1:], 0.0)
    following = np.append(values[1:], 2.0) + gae_lambda * later
    advantages = rewards + gamma * following - values
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-4, atol=1e-5)


def test_an_action_that_the_learner_never_takes_teaches_nothing() -> None:
    """Ratio 0: the value before it stays, and nothing after it reaches what came before."""
    found = vtrace(
        f32([1, 1, 1]),
        f32([2, 3, 4]),
        0.0,
        f32([0, -1e30, 0]),
        gamma=0.5,
        gae_lambda=1.0,
        rho_bar=1.0,
        c_bar=1.0,
    )
    assert found.returns.tolist() == [1 + 0.5 * 3, 3.0, 1.0]
    assert found.advantages[0] == 1 + 0.5 * 3 - 2


def test_absurd_ratios_are_cut_at_the_bounds() -> None:
    """A logged probability of e^-1e30 is finite on the wire, its ratio is not."""
    found = vtrace(
        f32([1.0]),
        f32([0.0]),
        0.0,
        f32([1e30]),
        gamma=0.9,
        gae_lambda=0.9,
        rho_bar=2.0,
        c_bar=1.0,
    )
    assert found.returns.tolist() == [2.0]


def test_constant_ratios_of_a_half_weigh_each_error_by_a_half() -> None:
    """Rewards of 1 and no values: v_t = 1/2 Σ (γ/2)^k, a geometric series."""
    half = np.full(30, math.log(0.5), np.float32)
    found = vtrace(
        np.ones(30, np.float32),
        np.zeros(30, np.float32),
        0.0,
        half,
        gamma=0.9,
        gae_lambda=1.0,
        rho_bar=1.0,
        c_bar=1.0,
    )
    q = 0.45
    expected = 0.5 * (1 - q ** np.arange(30, 0, -1)) / (1 - q)
    np.testing.assert_allclose(found.returns, expected, rtol=1e-5)


def test_trajectories_of_all_ends_are_corrected_each_by_itself() -> None:
    """In a rollout: the learner's probabilities before the update against those logged."""
    ppo = make_ppo(3)
    trajectories = [sample.trajectory for sample in mixed_samples(5, masked=True)]
    for part, shift in zip(trajectories, (-2.0, 0.0, 0.5, -0.3), strict=True):
        part.log_probs[:] += np.float32(shift)
    correction = Correction(ppo._log_probs, rho_bar=1.5, c_bar=0.7)
    rollout = make_rollout(
        trajectories, ppo._networks.values, None, gamma=0.97, gae_lambda=0.9, correction=correction
    )
    start = 0
    for part in trajectories:
        place = slice(start, start + len(part.actions))
        start = place.stop
        assert part.masks is not None
        log_pi = torch.distributions.Categorical(
            logits=ppo.actor(torch.tensor(part.observations)).masked_fill(
                ~torch.tensor(part.masks), -torch.inf
            )
        ).log_prob(torch.tensor(part.actions))  # type: ignore[no-untyped-call]
        last = 0.0
        if part.end is not End.TERMINATED:
            last = float(ppo.critic(torch.tensor(part.final_observation)[None]))
        ratios = np.exp(log_pi.numpy().astype(float) - part.log_probs)
        values = ppo.critic(torch.tensor(part.observations))[:, 0].numpy().astype(float)
        returns = slow_returns(
            part.rewards.astype(float), values, last, ratios, 0.97, 0.9, 1.5, 0.7
        )
        np.testing.assert_allclose(rollout.returns[place, 0], returns, rtol=1e-4, atol=1e-5)
        assert (rollout.log_probs[place, 0].numpy() == part.log_probs).all()


def own_log_probs(ppo: PPO, part: Trajectory) -> NDArray[np.float32]:
    """What `ppo` would have logged for the actions that were taken."""
    rollout = make_rollout([part], ppo._networks.values, None, gamma=0.99, gae_lambda=0.95)
    return ppo._log_probs(rollout)[:, 0].numpy()


def test_on_policy_an_update_is_the_same_with_it_and_without() -> None:
    """The same advantages and returns give the same steps."""
    updated: list[torch.Tensor] = []
    for switch in (True, False):
        ppo, samples = make_ppo(vtrace=switch, learning_rate=1e-3), mixed_samples(0)
        for sample in samples:
            sample.trajectory.log_probs[:] = own_log_probs(ppo, sample.trajectory)
        observe_all(ppo, samples).update()
        updated.append(torch.cat([ppo.actor.vector, ppo.critic.vector]))
    torch.testing.assert_close(*updated, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("switch", [True, False])
def test_what_the_updates_since_have_made_of_a_step_counts_towards_its_range(switch: bool) -> None:
    """Good actions, now 1.4 times as probable as when they were chosen: that is far enough."""
    ppo = make_ppo(vtrace=switch, normalize_advantage=False)
    ppo.critic.vector.zero_()
    samples = [with_rewards(sample, 1.0) for sample in mixed_samples(0)]
    for sample in samples:
        own = own_log_probs(ppo, sample.trajectory)
        sample.trajectory.log_probs[:] = own - math.log(1.4)
    before = ppo.actor.vector.clone()
    observe_all(ppo, samples).update()
    assert torch.equal(ppo.actor.vector, before)
