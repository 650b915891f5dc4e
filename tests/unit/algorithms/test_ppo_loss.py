"""The loss against a case worked out by hand, and gradient steps against plain torch."""

import math
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl4sys_stream.algorithms.distributions import Categorical, log_policy
from rl4sys_stream.algorithms.ppo import LOSS_METRICS, PPO, LossGradient, ppo_loss
from rl4sys_stream.algorithms.rollout import Rollout, make_rollout
from rl4sys_stream.config import PPOParameters
from rl4sys_stream.wire.trajectory import End
from tests.unit.algorithms.samples import SPEC, changed, make_ppo, mixed_samples, observe_all
from tests.unit.algorithms.test_gae import slow_gae
from tests.unit.algorithms.test_networks import as_plain_torch, generator

# The hand-computed case: two steps with the probabilities [1/4, 3/4] and the value 2.
PROBABILITIES = (0.25, 0.75)
LOGITS = torch.tensor([[0.0, math.log(3.0)]] * 2)
VALUES = torch.tensor([[2.0], [2.0]])
BY_HAND = PPOParameters(
    normalize_advantage=False, clip_range=0.2, ent_coef=0.1, vf_coef=0.5, batch_size=2, n_steps=2
)


def hand_rollout() -> Rollout:
    """Action 0 was twice as probable as now, action 1 had probability 1/2."""
    return Rollout(
        observations=torch.zeros(2, 1),
        actions=torch.tensor([[0], [1]]),
        log_probs=torch.tensor([[math.log(0.5)], [math.log(0.5)]]),
        values=torch.tensor([[0.0], [1.9]]),
        advantages=torch.tensor([[1.0], [4.0]]),
        returns=torch.tensor([[1.0], [5.0]]),
        masks=None,
    )


def loss_of(
    logits: Tensor, values: Tensor, batch: Rollout, parameters: PPOParameters
) -> LossGradient:
    """The loss of a discrete policy, at the whole clip range."""
    policy = Categorical(logits, batch.actions, batch.masks)
    return ppo_loss(policy, values, batch, parameters, parameters.clip_range)


def measured(batch: Rollout, parameters: PPOParameters) -> dict[str, float]:
    """The metrics of the loss at the hand-made outputs, by name."""
    metrics = loss_of(LOGITS, VALUES, batch, parameters).metrics
    return dict(zip(LOSS_METRICS, metrics.tolist(), strict=True))


def test_the_loss_of_a_case_worked_out_by_hand() -> None:
    """Ratios 1/2 (a loss is not clipped below) and 3/2 (a gain is clipped at 1.2)."""
    metrics = measured(hand_rollout(), BY_HAND)
    policy_loss = -(1.0 * 0.5 + 4.0 * 1.2) / 2
    value_loss = ((1.0 - 2.0) ** 2 + (5.0 - 2.0) ** 2) / 2
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert metrics["train/policy_gradient_loss"] == pytest.approx(policy_loss)
    assert metrics["train/value_loss"] == pytest.approx(value_loss)
    assert metrics["train/entropy_loss"] == pytest.approx(-entropy)
    assert metrics["train/loss"] == pytest.approx(policy_loss - 0.1 * entropy + 0.5 * value_loss)
    assert metrics["train/clip_fraction"] == 1.0
    approx_kl = ((0.5 - 1 - math.log(0.5)) + (1.5 - 1 - math.log(1.5))) / 2
    assert metrics["train/approx_kl"] == pytest.approx(approx_kl, rel=1e-5)


def test_negative_advantages_are_clipped_from_the_other_side() -> None:
    """The minimum keeps the pessimistic one: 0.8 for the low ratio, 1.5 for the high one."""
    batch = replace(hand_rollout(), advantages=torch.tensor([[-1.0], [-4.0]]))
    expected = (1.0 * 0.8 + 4.0 * 1.5) / 2
    assert measured(batch, BY_HAND)["train/policy_gradient_loss"] == pytest.approx(expected)


def test_advantages_are_normalised_within_the_minibatch() -> None:
    """Two values become ±1/√2 by the sample deviation."""
    parameters = changed(BY_HAND, normalize_advantage=True)
    half = math.sqrt(0.5)
    expected = -(-half * 0.8 + half * 1.2) / 2
    assert measured(hand_rollout(), parameters)["train/policy_gradient_loss"] == pytest.approx(
        expected
    )


def test_values_are_clipped_around_those_before_the_update() -> None:
    """The value 2 counts as 0.5 where it was 0, and as it is where it was 1.9."""
    parameters = changed(BY_HAND, clip_range_vf=0.5)
    expected = ((1.0 - 0.5) ** 2 + (5.0 - 2.0) ** 2) / 2
    assert measured(hand_rollout(), parameters)["train/value_loss"] == pytest.approx(expected)


def test_forbidden_actions_have_no_probability_and_no_gradient() -> None:
    """The other actions share what is left, as if the forbidden one did not exist."""
    logits = torch.tensor([[0.0, math.log(3.0), 50.0]] * 2)
    masks = torch.tensor([[True, True, False]] * 2)
    probabilities = log_policy(logits, masks).exp()
    assert probabilities[0].tolist() == pytest.approx([*PROBABILITIES, 0.0])
    assert (probabilities[:, 2] == 0.0).all()
    batch = replace(hand_rollout(), masks=masks)
    slopes = loss_of(logits, VALUES, batch, BY_HAND).outputs
    assert slopes.isfinite().all()
    assert (slopes[:, 2] == 0.0).all()
    torch.testing.assert_close(
        slopes[:, :2], loss_of(LOGITS, VALUES, hand_rollout(), BY_HAND).outputs
    )


def test_the_masked_distribution_is_the_one_of_ratio_and_entropy() -> None:
    """With one of two actions allowed, ratio and entropy know that it was certain."""
    batch = replace(
        hand_rollout(),
        actions=torch.tensor([[1], [1]]),
        log_probs=torch.zeros(2, 1),
        masks=torch.tensor([[False, True], [False, True]]),
    )
    metrics = measured(batch, BY_HAND)
    assert metrics["train/entropy_loss"] == 0.0
    assert metrics["train/approx_kl"] == 0.0
    assert metrics["train/policy_gradient_loss"] == pytest.approx(-2.5)


def plain_loss(logits: Tensor, values: Tensor, batch: Rollout, parameters: PPOParameters) -> Tensor:
    """The loss with torch.distributions and nothing written out, for autograd to differentiate."""
    if batch.masks is not None:
        logits = logits.masked_fill(~batch.masks, -torch.inf)
    distribution = torch.distributions.Categorical(logits=logits)
    log_prob = distribution.log_prob(batch.actions[:, 0])  # type: ignore[no-untyped-call]
    ratio = torch.exp(log_prob - batch.log_probs[:, 0])
    scaled = batch.advantages[:, 0]
    if parameters.normalize_advantage:
        scaled = (scaled - scaled.mean()) / (scaled.std() + 1e-8)
    low, high = 1 - parameters.clip_range, 1 + parameters.clip_range
    surrogate = torch.where(
        scaled > 0, scaled * ratio.clamp(max=high), scaled * ratio.clamp(min=low)
    )
    if (limit := parameters.clip_range_vf) is not None:
        values = torch.minimum(torch.maximum(values, batch.values - limit), batch.values + limit)
    errors = batch.returns - values
    entropy: Tensor = distribution.entropy()  # type: ignore[no-untyped-call]
    loss: Tensor = parameters.vf_coef * (errors**2).mean() - surrogate.mean()
    return loss - parameters.ent_coef * entropy.mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("clip_range_vf", [None, 0.3])
@pytest.mark.parametrize("normalize_advantage", [False, True])
def test_the_written_out_gradient_is_that_of_autograd(
    seed: int, masked: bool, clip_range_vf: float | None, normalize_advantage: bool
) -> None:
    """On random outputs far enough from the old ones that every branch of the clipping is met."""
    parameters = PPOParameters(
        ent_coef=0.03, clip_range_vf=clip_range_vf, normalize_advantage=normalize_advantage
    )
    trajectories = [sample.trajectory for sample in mixed_samples(seed, masked=masked)]
    batch = make_rollout(
        trajectories, make_ppo()._networks.values, None, gamma=0.99, gae_lambda=0.95
    )
    logits = torch.randn(69, 4, generator=generator(seed)).requires_grad_()
    values = (batch.values + torch.randn(69, 1, generator=generator(seed + 9))).requires_grad_()
    expected = plain_loss(logits, values, batch, parameters)
    expected.backward()  # type: ignore[no-untyped-call]
    found = loss_of(logits.detach(), values.detach(), batch, parameters)
    assert found.metrics[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert 0.2 < found.metrics[LOSS_METRICS.index("train/clip_fraction")].item() < 1.0
    assert logits.grad is not None
    assert values.grad is not None
    torch.testing.assert_close(found.outputs, logits.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.values, values.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("masked", [False, True])
def test_rollouts_keep_steps_and_masks_together_in_every_minibatch(masked: bool) -> None:
    """Each step once, each minibatch a row-wise selection, sizes within one of each other."""
    trajectories = [sample.trajectory for sample in mixed_samples(1, masked=masked)]
    ppo = make_ppo()
    rollout = make_rollout(trajectories, ppo._networks.values, None, gamma=0.99, gae_lambda=0.95)
    batches = list(rollout.minibatches(16, generator()))
    assert sorted(len(batch.actions) for batch in batches) == [17, 17, 17, 18]

    def rows(part: Rollout) -> list[list[float]]:
        columns: list[Tensor] = [part.observations, part.actions, part.log_probs, part.values]
        columns += [part.advantages, part.returns]
        columns += [] if part.masks is None else [part.masks]
        return torch.cat([column.double() for column in columns], dim=1).tolist()

    assert sorted(chain.from_iterable(map(rows, batches))) == sorted(rows(rollout))
    assert (rollout.masks is not None) == masked


def test_parts_without_masks_allow_everything_beside_parts_with_masks() -> None:
    """An agent may send a mask in one trajectory and none in the next."""
    parts = [mixed_samples(1)[0].trajectory, mixed_samples(2, masked=True)[1].trajectory]
    rollout = make_rollout(parts, make_ppo()._networks.values, None, gamma=0.99, gae_lambda=0.95)
    assert rollout.masks is not None
    assert parts[1].masks is not None
    assert rollout.masks[:20].all()
    assert rollout.masks[20:].tolist() == parts[1].masks.tolist()


def test_an_absurd_logged_probability_cannot_overflow_a_ratio() -> None:
    """-1e30 is finite, so the wire lets it through; e^(1e30) is not."""
    batch = replace(hand_rollout(), log_probs=torch.full((2, 1), -1e30))
    loss = loss_of(LOGITS, VALUES, batch, BY_HAND)
    assert loss.metrics.isfinite().all()
    assert loss.outputs.isfinite().all()


def reference_update(ppo: PPO, parameters: PPOParameters, seed: int) -> list[Tensor]:
    """One minibatch step written with torch's modules, distributions, clipping and optimizer.

    It must be called before `ppo.update()`, whose parameters it starts from.
    """
    actor, critic = as_plain_torch(ppo.actor, nn.Tanh), as_plain_torch(ppo.critic, nn.Tanh)
    parts = [sample.trajectory for sample in mixed_samples(seed, masked=True)]
    advantages, values = [], []
    for part in parts:
        values.append(critic(torch.tensor(part.observations))[:, 0].detach().double().numpy())
        last = 0.0
        if part.end is not End.TERMINATED:
            last = critic(torch.tensor(part.final_observation)[None]).item()
        rewards, gamma = part.rewards.astype(float), parameters.gamma
        advantages.append(slow_gae(rewards, values[-1], last, gamma, parameters.gae_lambda))

    def column(arrays: list[NDArray[np.generic]]) -> Tensor:
        return torch.tensor(np.concatenate(arrays))[:, None]

    batch = Rollout(
        observations=torch.tensor(np.concatenate([part.observations for part in parts])),
        actions=column([part.actions for part in parts]),
        log_probs=column([part.log_probs for part in parts]),
        values=column([*values]).float(),
        advantages=column([*advantages]).float(),
        returns=column([a + v for a, v in zip(advantages, values, strict=True)]).float(),
        masks=torch.tensor(np.concatenate([p.masks for p in parts if p.masks is not None])),
    )
    loss = plain_loss(actor(batch.observations), critic(batch.observations), batch, parameters)
    weights = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(weights, lr=parameters.learning_rate, eps=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(weights, parameters.max_grad_norm)
    optimizer.step()
    return [w.detach().T.reshape(-1) if w.ndim == 2 else w.detach() for w in weights]


@pytest.mark.parametrize("seed", range(3))
def test_an_update_steps_where_an_independent_implementation_steps(seed: int) -> None:
    """GAE, masks, ratio, entropy, value loss, gradient clipping and Adam, end to end."""
    parameters = PPOParameters(
        n_steps=64, batch_size=64, n_epochs=1, ent_coef=0.02, learning_rate=3e-3, max_grad_norm=0.1
    )
    ppo = observe_all(PPO(SPEC, parameters, seed=seed), mixed_samples(seed, masked=True))
    expected = torch.cat(reference_update(ppo, parameters, seed))
    before = torch.cat([ppo.actor.vector, ppo.critic.vector]).clone()
    ppo.update()
    stepped = torch.cat([ppo.actor.vector, ppo.critic.vector])
    assert (stepped - before).abs().max() > 1e-3
    torch.testing.assert_close(stepped, expected, rtol=1e-4, atol=2e-6)
