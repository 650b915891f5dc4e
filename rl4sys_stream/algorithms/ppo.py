"""Proximal policy optimisation for discrete actions with masks.

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
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rl4sys_stream.algorithms.base import AlgorithmState, PolicyExport, Sample, UpdateReport
from rl4sys_stream.algorithms.checkpoint import check_fits
from rl4sys_stream.algorithms.export import export_policy
from rl4sys_stream.algorithms.networks import MLP, make_actor, make_critic
from rl4sys_stream.algorithms.normalize import RunningMeanStd
from rl4sys_stream.algorithms.rollout import Rollout, make_rollout
from rl4sys_stream.config import ClientSpec, PPOParameters
from rl4sys_stream.errors import ConfigError, NonFiniteError, UsageError, WireFormatError
from rl4sys_stream.policy.extras import ObservationNormalization
from rl4sys_stream.spaces import Discrete, flat_dim
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["MAX_TRAJECTORIES", "PPO", "LossGradient", "log_policy", "ppo_loss"]

ADAM_EPSILON: Final = 1e-5
"""As in OpenAI's baselines and Stable-Baselines3; torch's own default is 1e-8."""

MAX_TRAJECTORIES: Final = 4000
"""An update consumes no more than this, since one commit has to settle them all."""

FORBIDDEN_LOGIT: Final = -1e9
"""Finite, so that 0 · log 0 is 0 in the entropy; its exponential is exactly 0."""

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


def log_policy(logits: Tensor, masks: Tensor | None) -> Tensor:
    """Log-probabilities float32 [B, n_actions]; forbidden actions have probability 0."""
    if masks is not None:
        logits = logits.masked_fill(~masks, FORBIDDEN_LOGIT)  # departure 3
    return torch.log_softmax(logits, dim=1)


@dataclass(frozen=True, slots=True)
class LossGradient:
    """Where the loss of one minibatch of B steps falls, and what it is made of.

    Attributes:
        logits: float32 [B, n_actions], the derivative of the loss by the actor's outputs.
        values: float32 [B, 1], the derivative of the loss by the critic's outputs.
        metrics: float32 [6], see `LOSS_METRICS`.
    """

    logits: Tensor
    values: Tensor
    metrics: Tensor


def ppo_loss(
    logits: Tensor, values: Tensor, batch: Rollout, parameters: PPOParameters
) -> LossGradient:
    """The objective of the paper's equation 9, negated, each term with its derivative.

    Written out, since autograd takes three times as long as this arithmetic.

    Args:
        logits: float32 [B, n_actions], the actor's outputs for `batch.observations`.
        values: float32 [B, 1], the critic's.
        batch: B steps.
        parameters: Ranges and weights of the terms.
    """
    size, clip = len(logits), parameters.clip_range
    log_pi = log_policy(logits, batch.masks)
    pi = log_pi.exp()
    log_ratio = log_pi.gather(1, batch.actions) - batch.log_probs  # [B, 1], departure 1
    ratio = log_ratio.exp()

    advantages = batch.advantages
    if parameters.normalize_advantage and size > 1:  # departure 4
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    # L^CLIP, equation 7. It has a slope only where the minimum is the unclipped term:
    # d ratio / d logits = ratio (onehot(action) - pi).
    unclipped, clipped = advantages * ratio, advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
    policy_loss = -torch.min(unclipped, clipped).mean()
    slope = unclipped * (unclipped <= clipped) / -size
    by_logits = (-slope * pi).scatter_add_(1, batch.actions, slope)

    # The negative entropy Σ pi log pi, whose derivative is pi (log pi - Σ pi log pi).
    information = pi * log_pi
    each_entropy_loss = information.sum(dim=1, keepdim=True)
    entropy_loss = each_entropy_loss.mean()
    if parameters.ent_coef:
        by_logits += (information - pi * each_entropy_loss) * (parameters.ent_coef / size)

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
    clip_fraction = ((ratio - 1.0).abs() > clip).float().mean()
    approx_kl = (ratio - 1.0 - log_ratio).mean()  # Schulman 2020, Approximating KL: k3
    metrics = (loss, policy_loss, value_loss, entropy_loss, clip_fraction, approx_kl)
    return LossGradient(by_logits, by_values, torch.stack(metrics))


class PPO:
    """PPO as `base.Algorithm` has it. The actor and the critic share nothing.

    Attributes:
        actor: From observations to logits.
        critic: From observations to values.
    """

    def __init__(self, spec: ClientSpec, parameters: PPOParameters, *, seed: int) -> None:
        """Draw the networks.

        Args:
            spec: The client's spaces and network.
            parameters: Hyperparameters; `parameters.seed` is the caller's to resolve.
            seed: Of the weights and of the order of minibatches.

        Raises:
            ConfigError: If the action space is not discrete.
        """
        if not isinstance(spec.action_space, Discrete):
            raise ConfigError("PPO needs a discrete action space", path="action_space")
        self._parameters = parameters
        self._generator = torch.Generator().manual_seed(seed)
        obs_dim = flat_dim(spec.observation_space)
        self.actor = make_actor(obs_dim, spec.action_space.n, spec.network, self._generator)
        self.critic = make_critic(obs_dim, spec.network, self._generator)
        self._networks = (self.actor, self.critic)
        self._optimizer = _make_adam(self._networks)
        self._statistics = RunningMeanStd(obs_dim)
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
        trajectories = [sample.trajectory for sample in self._samples]
        if self._parameters.normalize_observations:
            # Before training, so that what is trained is what will be published. The logged
            # log-probabilities are those of the older statistics, and the ratios say so.
            self._statistics.update(np.concatenate([t.observations for t in trajectories]))
        return make_rollout(
            trajectories,
            self.critic,
            self._normalization(),
            gamma=self._parameters.gamma,
            gae_lambda=self._parameters.gae_lambda,
        )

    def _normalization(self) -> ObservationNormalization | None:
        if not self._parameters.normalize_observations:
            return None
        return self._statistics.normalization(self._parameters.clip_observations)

    def _train(self, rollout: Rollout) -> dict[str, float]:
        """Descend, and average the metrics as Stable-Baselines3 does (approx_kl: last epoch)."""
        parameters = self._parameters
        target_kl = parameters.target_kl
        limit = float("inf") if target_kl is None else KL_TOLERANCE * target_kl
        if target_kl is not None:
            rollout = replace(rollout, initial_kl=self._initial_kl(rollout))
        self._set_learning_rates()
        epochs: list[Tensor] = []
        norms: list[Tensor] = []
        stopped = False
        while len(epochs) < parameters.n_epochs and not stopped:
            rows: list[Tensor] = []
            for batch in rollout.minibatches(parameters.batch_size, self._generator):
                acting, valuing = (n.trace(batch.observations) for n in self._networks)
                loss = ppo_loss(acting[-1], valuing[-1], batch, parameters)
                rows.append(loss.metrics)
                # Departure 5. The minibatch that shows the excess is not stepped on.
                stopped = batch.initial_kl is not None and (
                    float(loss.metrics[-1] - batch.initial_kl.mean()) > limit
                )
                if stopped:
                    break
                self.actor.backpropagate(acting, loss.logits)
                self.critic.backpropagate(valuing, loss.values)
                norms.append(self._step())
            epochs.append(torch.stack(rows))
        self._n_updates += len(epochs)
        means = dict(zip(LOSS_METRICS, torch.cat(epochs).mean(dim=0).tolist(), strict=True))
        means["train/approx_kl"] = float(epochs[-1][:, -1].mean())
        means["train/grad_norm"] = float(torch.stack(norms).mean()) if norms else 0.0
        return means

    @torch.no_grad()
    def _initial_kl(self, rollout: Rollout) -> Tensor:
        """Each step's approximate KL of the policy that acted to the one that is to be trained.

        Lagging data brings it along, and it is not the update's doing: counted in, it could end
        the update before its first step.
        """
        log_pi = log_policy(self.actor(rollout.observations), rollout.masks)
        log_ratio = log_pi.gather(1, rollout.actions) - rollout.log_probs
        return log_ratio.exp() - 1.0 - log_ratio

    def _step(self) -> Tensor:
        """One step of Adam; returns the gradient's norm before clipping, a scalar."""
        norms = [torch.linalg.vector_norm(network.gradient) for network in self._networks]
        norm = torch.hypot(*norms)
        shrink = (self._parameters.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for network in self._networks:
            network.gradient.mul_(shrink)  # departure 6
        self._optimizer.step()
        return norm

    def _set_learning_rates(self) -> None:
        """Constant, or linear in the steps trained on: 0 from `total_timesteps` on."""
        parameters = self._parameters
        remaining = 1.0
        if parameters.learning_rate_schedule == "linear" and parameters.total_timesteps:
            remaining = max(0.0, 1.0 - self._num_timesteps / parameters.total_timesteps)
        rates = (parameters.learning_rate, parameters.critic_learning_rate)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = remaining * (parameters.learning_rate if rate is None else rate)

    def _describe(self, rollout: Rollout) -> dict[str, float]:
        """The metrics that are not averages over minibatches."""
        lags = np.array([sample.lag for sample in self._samples])
        steps = np.array([len(sample.trajectory.actions) for sample in self._samples])
        return {
            "train/explained_variance": _explained_variance(rollout.values, rollout.returns),
            "train/learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            "train/clip_range": self._parameters.clip_range,
            "train/n_updates": float(self._n_updates),
            "policy/lag_mean": float(np.average(lags, weights=steps)),
            "policy/lag_max": float(lags.max()),
        }

    def _check_finite(self, metrics: dict[str, float]) -> None:
        """Raise NonFiniteError for anything that would be reported, published or kept."""
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise NonFiniteError(f"{name} became {value}; the update was rolled back")
        for name, tensor in self._tensors().items():
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
                "observations.count": self._statistics.count,
            },
            arrays={
                **{name: tensor.numpy().copy() for name, tensor in self._tensors().items()},
                "generator": self._generator.get_state().numpy(),
                "observations.mean": self._statistics.mean.copy(),
                "observations.variance": self._statistics.variance.copy(),
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
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.tensor(state.arrays[name]))
        self._statistics.mean = state.arrays["observations.mean"].astype(np.float64)
        self._statistics.variance = state.arrays["observations.variance"].astype(np.float64)
        self._statistics.count = int(state.numbers["observations.count"])
        self._num_timesteps = int(state.numbers["num_timesteps"])
        self._n_updates = int(state.numbers["n_updates"])

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and Adam's moments by name: the tensors themselves."""
        tensors: dict[str, Tensor] = {}
        for network in self._networks:
            tensors[network.prefix] = network.vector
            for moment, tensor in self._optimizer.state[network.vector].items():
                tensors[f"{network.prefix}.{moment}"] = tensor
        return tensors


def _make_adam(networks: tuple[MLP, ...]) -> torch.optim.Adam:
    """One Adam with a group for each network, so that the critic can have a rate of its own."""
    groups = [{"params": [network.vector]} for network in networks]
    adam = torch.optim.Adam(groups, eps=ADAM_EPSILON, fused=True)
    for network in networks:
        # Adam would make these at its first step; made now, every state has the same arrays.
        adam.state[network.vector] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(network.vector),
            "exp_avg_sq": torch.zeros_like(network.vector),
        }
    return adam


def _explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var[returns - values] / Var[returns]; 0 where the returns do not vary."""
    variance = float(returns.var(correction=0))
    if variance == 0.0:
        return 0.0
    return 1.0 - float((returns - values).var(correction=0)) / variance
