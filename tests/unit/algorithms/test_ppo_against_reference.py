"""Updates of our PPO equal those of Stable-Baselines3's from the same weights on the same steps."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.distributions import log_policy
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.ppo_reference import fill, flat_weights, make_reference, reference_layers
from tests.unit.algorithms.samples import SMALL, changed, make_ppo, observe_all, random_trajectory

STEPS = 32
# Each environment's trajectories: all three ends, in the middle and at the end of the rollout.
PLAN = (
    ((20, End.TERMINATED), (12, End.CUT)),
    ((10, End.TRUNCATED), (15, End.TERMINATED), (7, End.TRUNCATED)),
)
TOLERANCE = 2e-6
"""Absolute, of weights that move by 1e-3 a gradient step; sums are taken in another order."""


def trajectories(ours: PPO, seed: int, age: float) -> list[list[Trajectory]]:
    """Twice 32 steps, drawn by a policy whose log-probabilities deviate by `age` from `ours`."""
    rng = np.random.default_rng(seed)
    envs = [[random_trajectory(rng, steps, end=end) for steps, end in env] for env in PLAN]
    for trajectory in (t for env in envs for t in env):
        noise = rng.normal(0.0, age, len(trajectory.actions))
        trajectory.log_probs[:] = np.minimum(log_probs(ours, trajectory) + noise, 0.0)
    return envs


def log_probs(ppo: PPO, trajectory: Trajectory) -> NDArray[np.float32]:
    """What `ppo` gives the trajectory's actions."""
    with torch.no_grad():
        log_pi = log_policy(ppo.actor(torch.from_numpy(trajectory.observations)), None)
    return log_pi.gather(1, torch.from_numpy(trajectory.actions)[:, None])[:, 0].numpy()


def upcoming_orders(ours: PPO, epochs: int) -> list[torch.Tensor]:
    """The orders in which `ours` will go through its next rollout."""
    generator = torch.Generator()
    generator.set_state(torch.from_numpy(ours.state().arrays["generator"].copy()))
    return [torch.randperm(2 * STEPS, generator=generator) for _ in range(epochs)]


CASES = {
    "one gradient step": {"n_epochs": 1, "batch_size": 64},
    "several": {},
    "advantages as they are": {"normalize_advantage": False},
    "clipped values": {"clip_range_vf": 0.02, "learning_rate": 1e-3},
    "entropy": {"ent_coef": 0.05},
    "weight of the values": {"vf_coef": 0.9},
    "gradients cut short": {"max_grad_norm": 0.05},
    "gradients whole": {"max_grad_norm": 1e6},
    "narrow clip range": {"clip_range": 0.02, "learning_rate": 1e-3},
    "other discounts": {"gamma": 0.9, "gae_lambda": 0.5},
    "linear schedule": {"learning_rate_schedule": "linear", "total_timesteps": 256},
    "linear clip range": {
        "clip_range": 0.1,
        "learning_rate": 1e-3,
        "clip_range_schedule": "linear",
        "total_timesteps": 256,
    },
    # Of the policy's own steps: the KL that older ones bring along does not count here.
    "early end": {"learning_rate": 3e-3, "n_epochs": 10, "target_kl": 0.002},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_updates_equal_the_references(changes: dict[str, object]) -> None:
    """Three updates on one rollout each: advantages, losses, clipping, Adam and its moments."""
    parameters = changed(SMALL, **changes)
    ours = make_ppo(3, **changes)
    before = ours.actor.vector.clone()
    reference = make_reference(ours, parameters)
    metrics: dict[str, float] = {}
    for update in range(3):
        envs = trajectories(ours, update, 0.0 if parameters.target_kl else 0.2)
        fill(reference, envs, upcoming_orders(ours, parameters.n_epochs))
        total = parameters.total_timesteps or 1
        reference._update_current_progress_remaining(update * 2 * STEPS, total)
        reference.train()
        observe_all(ours, [Sample(t, 0) for env in envs for t in env])
        metrics.update(ours.update().metrics)
        logged = reference.logger.name_to_value
        assert metrics["train/value_loss"] == pytest.approx(logged["train/value_loss"], rel=1e-4)
        assert metrics["train/n_updates"] == logged["train/n_updates"]
        networks = (ours.actor, ours.critic)
        for mlp, layers in zip(networks, reference_layers(reference), strict=True):
            np.testing.assert_allclose(mlp.vector, flat_weights(layers), rtol=0, atol=TOLERANCE)
    assert (ours.actor.vector - before).abs().max() > 1e-4
    ended_early = metrics["train/n_updates"] < 3 * parameters.n_epochs
    assert ended_early == (parameters.target_kl is not None)
