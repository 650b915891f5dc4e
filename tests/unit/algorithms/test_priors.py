"""Training around logits that the application gave: ratios, entropy and gradients know them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.ppo import PPO, ppo_loss
from rl4sys_stream.algorithms.rollout import Rollout, make_rollout
from rl4sys_stream.config import PPOParameters
from rl4sys_stream.policy.policy import build_policy
from tests.unit.algorithms.samples import (
    N_ACTIONS,
    SMALL,
    SPEC,
    changed,
    make_ppo,
    mixed_samples,
    observe_all,
)


def guided(samples: list[Sample], seed: int, *, every: int = 1) -> list[Sample]:
    """`samples`, every so many of them with random priors."""
    rng = np.random.default_rng(seed)
    found = []
    for index, sample in enumerate(samples):
        shape = (len(sample.trajectory.actions), N_ACTIONS)
        priors = None if index % every else rng.normal(0, 2, shape).astype(np.float32)
        found.append(Sample(replace(sample.trajectory, priors=priors), sample.lag))
    return found


def acted(ppo: PPO, seed: int) -> list[Sample]:
    """The samples as the exported policy would have recorded them with their priors."""
    export, rng = ppo.export(), np.random.default_rng(seed)
    policy = build_policy(SPEC, export.weights, export.extras, 1, "token")
    samples = []
    for sample in guided(mixed_samples(seed, masked=True), seed, every=2):
        part = sample.trajectory
        chosen = [
            policy.act(
                part.observations[t],
                None if part.masks is None else part.masks[t],
                rng.random,
                None if part.priors is None else part.priors[t],
            )
            for t in range(len(part.actions))
        ]
        actions = np.array([raw for raw, _ in chosen])
        log_probs = np.array([log_prob for _, log_prob in chosen], np.float32)
        samples.append(Sample(replace(part, actions=actions, log_probs=log_probs)))
    return samples


def rollout_of(ppo: PPO, samples: list[Sample]) -> Rollout:
    """What an update of `ppo` would train on."""
    trajectories = [sample.trajectory for sample in samples]
    return make_rollout(trajectories, ppo._networks.values, None, gamma=0.9, gae_lambda=0.9)


def test_the_learner_finds_the_probabilities_that_were_logged_with_priors() -> None:
    """Also where some trajectories have none: each ratio is 1 before the first step."""
    ppo = make_ppo(learning_rate=0.03, n_epochs=20)
    observe_all(ppo, acted(ppo, 0)).update()
    rollout = rollout_of(ppo, acted(ppo, 1))
    torch.testing.assert_close(ppo._log_probs(rollout), rollout.log_probs, rtol=1e-4, atol=2e-5)
    without = ppo._log_probs(replace(rollout, priors=None))
    assert (without - rollout.log_probs).abs().max() > 0.5


def test_the_loss_and_its_gradient_are_those_of_the_sum_of_both_logits() -> None:
    """Entropy included, held against autograd on the same numbers written plainly."""
    ppo, parameters = make_ppo(), entropic()
    rollout = rollout_of(ppo, guided(mixed_samples(3, masked=True), 3))
    assert rollout.priors is not None
    assert rollout.masks is not None
    outputs = ppo._networks.outputs(rollout.observations, rollout.masks).requires_grad_()
    values = torch.zeros(len(outputs), 1)
    found = ppo_loss(
        ppo._policy(outputs.detach(), rollout), values, rollout, parameters, parameters.clip_range
    )
    logits = (outputs + rollout.priors).masked_fill(~rollout.masks, -1e9)
    log_pi = torch.log_softmax(logits, 1)
    ratio = (log_pi.gather(1, rollout.actions) - rollout.log_probs).exp()
    gain = torch.min(rollout.advantages * ratio, rollout.advantages * ratio.clamp(0.8, 1.2)).mean()
    entropy = -(log_pi.exp() * log_pi).sum(1).mean()
    (expected,) = torch.autograd.grad(-gain - 0.1 * entropy, outputs)
    torch.testing.assert_close(found.outputs, expected, rtol=1e-4, atol=1e-7)
    assert float(found.metrics[3]) == pytest.approx(-float(entropy.detach()), rel=1e-5)


def entropic() -> PPOParameters:
    """Entropy weighs, advantages stay as they are."""
    return changed(SMALL, ent_coef=0.1, normalize_advantage=False)


def test_priors_that_favour_nothing_change_nothing() -> None:
    """A constant beside all logits is no opinion; nor are zeros in place of none."""
    vectors = []
    for constant in (None, 0.0, 2.0):
        samples = [
            Sample(
                replace(
                    s.trajectory,
                    priors=None
                    if constant is None
                    else np.full((len(s.trajectory.actions), N_ACTIONS), constant, np.float32),
                ),
                s.lag,
            )
            for s in mixed_samples(0, masked=True)
        ]
        ppo = make_ppo()
        observe_all(ppo, samples).update()
        vectors.append(ppo._networks.vector)
    torch.testing.assert_close(vectors[0], vectors[1], rtol=0, atol=0)
    torch.testing.assert_close(vectors[0], vectors[2], rtol=1e-4, atol=1e-5)


def test_a_lag_correction_knows_the_priors() -> None:
    """What was acted with priors is on-policy, so that it sees no lag: an update is the same."""
    plain, corrected = make_ppo(), make_ppo(vtrace=True)
    for ppo in (plain, corrected):
        observe_all(ppo, acted(ppo, 2)).update()
    torch.testing.assert_close(
        plain._networks.vector, corrected._networks.vector, rtol=1e-3, atol=1e-5
    )


def test_the_early_end_knows_the_priors() -> None:
    """Nor does it see a divergence that the update did not bring about."""
    ppo = make_ppo(target_kl=0.01)
    rollout = rollout_of(ppo, acted(ppo, 3))
    assert float(ppo._initial_kl(rollout).abs().max()) < 1e-4
