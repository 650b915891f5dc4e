"""Proximal policy optimisation: one choice, several, with masks, or real-valued actions.

Schulman, Wolski, Dhariwal, Radford, Klimov: Proximal Policy Optimization Algorithms, 2017
(arXiv:1707.06347). Read from top to bottom: the loss, the update, resuming. Departures from the
paper, most of them described by Huang et al. 2022, The 37 Implementation Details of Proximal
Policy Optimization; each is marked where it happens:

 1. Ratios are taken against the log-probabilities that agents logged, not against the learner's
    own before the update, so data of lagging policies is importance-corrected like any other.
 2. Trajectories of several policies and of any length make one rollout (rollout.py).
 3. Forbidden actions have probability 0 in ratio and entropy (Huang, Ontañón 2022,
    arXiv:2006.14171).
 4. Advantages are normalised within each minibatch.
 5. Optionally values are clipped, and epochs end early, both as in Stable-Baselines3; but the KL
    that lagging data brings along does not count towards the early end.
 6. The joint gradient of actor and critic is clipped by its norm.
 7. Optionally, lagging steps are corrected: advantages and values by V-trace (vtrace.py), and the
    range of the clipped ratio lies around a policy half-way between the one that acted and the
    learner's before the update (`rollout.BETWEEN`), each step weighing by what that leaves out.
    Nothing changes where nothing lags.
 8. Optionally, rewards are divided by the running deviation of the return, as in
    Stable-Baselines3's `VecNormalize`.
 9. Where applications gave logits of their own, the policy is the softmax of the actor's plus
    those: what is learned is where to depart from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rl4sys_stream.algorithms.base import AlgorithmState, PolicyExport, Sample, UpdateReport
from rl4sys_stream.algorithms.checkpoint import check_fits
from rl4sys_stream.algorithms.distributions import ActionDistribution, make_distribution
from rl4sys_stream.algorithms.export import check_normalization, export_policy, load_weights
from rl4sys_stream.algorithms.lag import describe_lag
from rl4sys_stream.algorithms.networks import make_actor_critic
from rl4sys_stream.algorithms.normalize import RunningMeanStd, discounted_returns, scale_rewards
from rl4sys_stream.algorithms.optimizer import Optimizer
from rl4sys_stream.algorithms.rollout import (
    Correction,
    Rollout,
    make_rollout,
    observed_inputs,
)
from rl4sys_stream.config import ClientSpec, PPOParameters
from rl4sys_stream.errors import NonFiniteError, UsageError, WireFormatError
from rl4sys_stream.policy.extras import ObservationNormalization
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["MAX_TRAJECTORIES", "PPO", "LossGradient", "ppo_loss"]

MAX_TRAJECTORIES: Final = 4000
"""An update consumes no more than this, since one commit has to settle them all."""

MAX_LOG_RATIO: Final = 20.0
"""Ratios are cut at e to this. No honest step comes near; a corrupt one must not overflow."""

KL_TOLERANCE: Final = 1.5
"""Epochs end when the approximate KL has grown by `target_kl` times this (Stable-Baselines3)."""

LOSS_METRICS: Final = (
    "train/loss",
    "train/policy_gradient_loss",
    "train/value_loss",
    "train/entropy_loss",
    "train/clip_fraction",
    "train/approx_kl",
)
"""What `ppo_loss` measures, in the order in which it returns it."""


@dataclass(frozen=True, slots=True)
class LossGradient:
    """Where the loss of one minibatch of B steps falls, and what it is made of.

    Attributes:
        outputs: float32 [B, outputs], the derivative of the loss by the actor's outputs.
        values: float32 [B, 1], the derivative of the loss by the critic's outputs.
        metrics: float32 [6], see `LOSS_METRICS`.
    """

    outputs: Tensor
    values: Tensor
    metrics: Tensor


def ppo_loss(
    policy: ActionDistribution,
    values: Tensor,
    batch: Rollout,
    parameters: PPOParameters,
    clip: float,
) -> LossGradient:
    """The objective of the paper's equation 9, negated, each term with its derivative.

    Args:
        policy: The actor's outputs for `batch.observations`, at `batch.actions`.
        values: float32 [B, 1], the critic's outputs.
        batch: B steps.
        parameters: Weights of the terms, and the range of values.
        clip: The present `clip_range`.
    """
    size = len(values)
    # [B, 1], departure 1
    log_ratio = (policy.log_probs - batch.log_probs).clamp_(max=MAX_LOG_RATIO)
    ratio = log_ratio.exp()

    advantages = batch.advantages
    if parameters.normalize_advantage and size > 1:  # departure 4
        deviation, mean = torch.std_mean(advantages)
        advantages = (advantages - mean) / (deviation + 1e-8)
    if batch.weights is not None:
        advantages = advantages * batch.weights  # departure 7

    # L^CLIP, equation 7. It has a slope only where the minimum is the unclipped term:
    # d ratio / d log-probability = ratio.
    unclipped, clipped = advantages * ratio, advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
    policy_loss = -torch.min(unclipped, clipped).mean()
    by_log_probs = unclipped * (unclipped <= clipped) / -size
    entropy_loss = policy.entropy_losses.mean()
    by_outputs = policy.gradient(by_log_probs, parameters.ent_coef / size)

    # L^VF; departure 5 is the clipping, without the maximum that OpenAI's baselines take.
    limit = parameters.clip_range_vf
    change = values - batch.values
    errors = values if limit is None else batch.values + change.clamp(-limit, limit)
    errors = errors - batch.returns
    value_loss = errors.square().mean()
    by_values = errors * (2.0 * parameters.vf_coef / size)
    if limit is not None:
        by_values *= change.abs() <= limit

    loss = policy_loss + parameters.ent_coef * entropy_loss + parameters.vf_coef * value_loss
    excess = ratio - 1.0
    clip_fraction = (excess.abs() > clip).float().mean()
    approx_kl = (excess - log_ratio).mean()  # Schulman 2020, Approximating KL: k3
    metrics = (loss, policy_loss, value_loss, entropy_loss, clip_fraction, approx_kl)
    return LossGradient(by_outputs, by_values, torch.stack(metrics))


class PPO:
    """PPO as `base.Algorithm` has it.

    Attributes:
        actor: From observations to the outputs of `distributions.make_distribution`, or from one
            item to its logit.
        critic: From what it shares with the actor, from observations, or from pools of their items
            to values.
    """

    def __init__(self, spec: ClientSpec, parameters: PPOParameters, *, seed: int) -> None:
        """Draw the networks.

        Args:
            spec: The client's spaces and network.
            parameters: Hyperparameters; `parameters.seed` is the caller's to resolve.
            seed: Of the weights and of the order of minibatches.
        """
        self._parameters = parameters
        self._generator = torch.Generator().manual_seed(seed)
        self._squash = spec.actions.squash
        self._networks = make_actor_critic(
            spec, self._generator, log_std_init=parameters.log_std_init
        )
        self.actor, self.critic = self._networks.actor, self._networks.critic
        self._distribution = make_distribution(spec.actions, self.actor)
        self._optimizer = Optimizer(
            (self.actor, self.critic), learning_rate=parameters.learning_rate
        )
        self._input_dim = spec.input_dim
        self._statistics = {
            "observations": RunningMeanStd(self._input_dim),
            "returns": RunningMeanStd(1),
        }
        self._num_timesteps = 0
        self._n_updates = 0  # epochs; Stable-Baselines3 calls them so
        self._samples: list[Sample] = []
        self._observed_steps = 0

    @property
    def retained(self) -> int:
        """None: see `Algorithm.retained`."""
        return 0

    def replay(self, trajectories: Sequence[Trajectory]) -> None:
        """See `Algorithm.replay`; nothing was retained, so nothing comes."""

    def observe(self, sample: Sample) -> None:
        """See `Algorithm.observe`."""
        self._samples.append(sample)
        self._observed_steps += len(sample.trajectory.actions)

    def ready(self) -> bool:
        """True at `n_steps` steps, or at as many trajectories as one commit can settle."""
        enough = self._observed_steps >= self._parameters.n_steps
        return enough or len(self._samples) >= MAX_TRAJECTORIES

    def discard(self) -> None:
        """See `Algorithm.discard`."""
        self._samples = []
        self._observed_steps = 0

    def export(self) -> PolicyExport:
        """See `Algorithm.export`."""
        return export_policy(self.actor, self._normalization())

    # The update ----------------------------------------------------------------------------------

    def update(self) -> UpdateReport:
        """See `Algorithm.update`."""
        if not self._samples:
            raise UsageError("nothing to train on: observe a trajectory before an update")
        before = self.state()
        try:
            rollout = self._make_rollout()
            metrics = self._train(rollout) | self._describe(rollout)
            self._num_timesteps += self._observed_steps
            self._check_finite(metrics)
        except BaseException:
            # Interrupted half-way or failed: either way nobody may see a half-trained policy.
            self.load_state(before)
            raise
        report = UpdateReport(metrics, self._observed_steps, len(self._samples))
        self.discard()
        return report

    def _make_rollout(self) -> Rollout:
        """Statistics first, so that what is trained is what will be published.

        The logged log-probabilities are those of the older statistics, and the ratios say so.
        """
        parameters = self._parameters
        trajectories = [sample.trajectory for sample in self._samples]
        if parameters.normalize_observations:
            seen = observed_inputs(trajectories, self._input_dim)
            self._statistics["observations"].update(seen)
        if parameters.normalize_rewards:
            trajectories = self._scale_rewards(trajectories)
        return make_rollout(
            trajectories,
            self._networks.values,
            self._normalization(),
            gamma=parameters.gamma,
            gae_lambda=parameters.gae_lambda,
            correction=Correction(self._log_probs, parameters.rho_bar, parameters.c_bar)
            if parameters.vtrace
            else None,
            squash=self._squash,
        )

    def _scale_rewards(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        """By the statistics of the returns, these included; departure 8."""
        parameters, statistics = self._parameters, self._statistics["returns"]
        returns = [discounted_returns(t.rewards, parameters.gamma) for t in trajectories]
        statistics.update(np.concatenate(returns)[:, None])
        return [
            replace(t, rewards=scale_rewards(t.rewards, statistics, parameters.clip_rewards))
            for t in trajectories
        ]

    def _normalization(self) -> ObservationNormalization | None:
        if not self._parameters.normalize_observations:
            return None
        return self._statistics["observations"].normalization(self._parameters.clip_observations)

    @torch.no_grad()
    def _log_probs(self, steps: Rollout) -> Tensor:
        """Log-probabilities float32 [N, 1] of the policy as it is now."""
        outputs = self._networks.outputs(steps.observations, steps.masks)
        return self._policy(outputs, steps).log_probs

    def _policy(self, outputs: Tensor, steps: Rollout) -> ActionDistribution:
        """What `outputs` float32 [N, outputs] of the actor make of its actions; departure 9."""
        if steps.priors is not None:
            outputs = outputs + steps.priors
        return self._distribution(outputs, steps.actions, steps.masks)

    def _train(self, rollout: Rollout) -> dict[str, float]:
        """Descend, and average the metrics as Stable-Baselines3 does (approx_kl: last epoch)."""
        parameters = self._parameters
        target_kl = parameters.target_kl
        limit = float("inf") if target_kl is None else KL_TOLERANCE * target_kl
        if target_kl is not None:
            rollout = replace(rollout, initial_kl=self._initial_kl(rollout))
        self._optimizer.set_learning_rates(self._learning_rates())
        clip = self._clip_range()
        epochs: list[Tensor] = []
        norms: list[Tensor] = []
        stopped = False
        while len(epochs) < parameters.n_epochs and not stopped:
            rows: list[Tensor] = []
            for batch in rollout.minibatches(parameters.batch_size, self._generator):
                trace = self._networks.trace(batch.observations, batch.masks)
                policy = self._policy(trace.actor[-1], batch)
                loss = ppo_loss(policy, trace.critic[-1], batch, parameters, clip)
                rows.append(loss.metrics)
                # Departure 5. The minibatch that shows the excess is not stepped on.
                stopped = batch.initial_kl is not None and (
                    float(loss.metrics[-1] - batch.initial_kl.mean()) > limit
                )
                if stopped:
                    break
                self._networks.backpropagate(trace, loss.outputs, loss.values)
                norms.append(self._optimizer.step(parameters.max_grad_norm))  # departure 6
            epochs.append(torch.stack(rows))
        self._n_updates += len(epochs)
        means = dict(zip(LOSS_METRICS, torch.cat(epochs).mean(dim=0).tolist(), strict=True))
        means["train/approx_kl"] = float(epochs[-1][:, -1].mean())
        means["train/grad_norm"] = float(torch.stack(norms).mean()) if norms else 0.0
        return means

    def _initial_kl(self, rollout: Rollout) -> Tensor:
        """Each step's approximate KL of what ratios are taken against to what is to be trained.

        Lagging data brings it along, and it is not the update's doing: counted in, it could end
        the update before its first step.
        """
        log_ratio = self._log_probs(rollout) - rollout.log_probs
        return log_ratio.exp() - 1.0 - log_ratio

    def _learning_rates(self) -> tuple[float, float]:
        """The actor's and the critic's, by their schedule."""
        parameters = self._parameters
        remaining = self._remaining(parameters.learning_rate_schedule)
        own = parameters.critic_learning_rate
        critic = parameters.learning_rate if own is None else own
        return remaining * parameters.learning_rate, remaining * critic

    def _clip_range(self) -> float:
        return self._remaining(self._parameters.clip_range_schedule) * self._parameters.clip_range

    def _remaining(self, schedule: str) -> float:
        """1, or falling linearly in the steps trained on: 0 from `total_timesteps` on."""
        total = self._parameters.total_timesteps
        if schedule != "linear" or total is None:
            return 1.0
        return max(0.0, 1.0 - self._num_timesteps / total)

    def _describe(self, rollout: Rollout) -> dict[str, float]:
        """The metrics that are not averages over minibatches."""
        return {
            "train/explained_variance": _explained_variance(rollout.values, rollout.returns),
            "train/learning_rate": self._learning_rates()[0],
            "train/clip_range": self._clip_range(),
            "train/n_updates": float(self._n_updates),
            **describe_lag(self._samples),
        }

    def _check_finite(self, metrics: dict[str, float]) -> None:
        """Raise NonFiniteError for anything that would be reported, published or kept."""
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise NonFiniteError(f"{name} became {value}; the update was rolled back")
        for name, tensor in self._optimizer.tensors().items():
            if not tensor.isfinite().all():
                raise NonFiniteError(f"{name} became infinite or NaN; the update was rolled back")

    # Resuming ------------------------------------------------------------------------------------

    def state(self) -> AlgorithmState:
        """See `Algorithm.state`."""
        return AlgorithmState(
            algorithm="PPO",
            numbers={
                "num_timesteps": self._num_timesteps,
                "n_updates": self._n_updates,
                **{f"{name}.count": s.count for name, s in self._statistics.items()},
            },
            arrays={
                **{
                    name: tensor.numpy().copy()
                    for name, tensor in self._optimizer.tensors().items()
                },
                "generator": self._generator.get_state().numpy(),
                **{f"{name}.mean": s.mean.copy() for name, s in self._statistics.items()},
                **{f"{name}.variance": s.variance.copy() for name, s in self._statistics.items()},
            },
        )

    def load_state(self, state: AlgorithmState) -> None:
        """See `Algorithm.load_state`."""
        check_fits(state, self.state())
        generator = torch.Generator()
        try:
            generator.set_state(torch.tensor(state.arrays["generator"]))
        except RuntimeError as error:
            raise WireFormatError(f"the checkpoint's generator is not usable: {error}") from None
        self._generator = generator
        for name, tensor in self._optimizer.tensors().items():
            tensor.copy_(torch.tensor(state.arrays[name]))
        for name, statistics in self._statistics.items():
            statistics.mean = state.arrays[f"{name}.mean"].astype(np.float64)
            statistics.variance = state.arrays[f"{name}.variance"].astype(np.float64)
            statistics.count = int(state.numbers[f"{name}.count"])
        self._num_timesteps = int(state.numbers["num_timesteps"])
        self._n_updates = int(state.numbers["n_updates"])

    def load_policy(self, policy: PolicyExport) -> None:
        """See `Algorithm.load_policy`."""
        check_normalization(policy, normalizes=self._parameters.normalize_observations)
        load_weights(self.actor.tensors(), policy.weights)
        if policy.extras.normalization is not None:
            self._statistics["observations"].adopt(policy.extras.normalization)


def _explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var[returns - values] / Var[returns]; 0 where the returns do not vary."""
    variance = float(returns.var(correction=0))
    if variance == 0.0:
        return 0.0
    return 1.0 - float((returns - values).var(correction=0)) / variance
