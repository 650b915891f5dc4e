"""Soft actor-critic for real-valued actions.

Haarnoja et al.: Soft Actor-Critic Algorithms and Applications, 2018 (arXiv:1812.05905). Read from
top to bottom: drawing an action, the slopes of the losses, the gradient step, resuming. Everything
happens in [-1, 1], where tanh takes the raw actions that agents record: what is applied differs
from it by the fixed scale of the bounds. Departures from the paper:

 1. What is learned of the temperature is its logarithm, as in the authors' code and in
    Stable-Baselines3.
 2. Each gradient step takes the temperature as it was before the step.
 3. The steps before an episode's truncation or a trajectory's cut are bootstrapped, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rl4sys_stream.algorithms.adam import make_adam, moments
from rl4sys_stream.algorithms.base import PolicyExport
from rl4sys_stream.algorithms.networks import (
    MLP,
    VALUE_GAIN,
    Parameters,
    make_actor,
    parameter_count,
)
from rl4sys_stream.algorithms.off_policy import OffPolicy, headroom_for
from rl4sys_stream.algorithms.replay_buffer import ReplayBuffer, Transitions
from rl4sys_stream.config import ClientSpec, NetworkSpec, SACParameters
from rl4sys_stream.errors import ConfigError, NonFiniteError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.heads import MAX_LOG_STD, MIN_LOG_STD
from rl4sys_stream.spaces import Box, flat_dim
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["SAC", "Draw", "TwinCritics", "actor_slopes", "draw_actions", "soft_targets"]

ADAM_EPSILON: Final = 1e-8
"""torch's default, and so Stable-Baselines3's for SAC."""

LARGEST_VALUE: Final = 1e15
"""Observations that are worth more in size are refused. The square of the gradient would not be far
from the largest float32, and in the buffer they would fail any later update that draws them, when
nobody could tell any more where they came from."""

OBSERVATIONS_AT_ONCE: Final = 512
"""Of new observations that are looked at. More would not fit into the processor's caches."""

METRICS: Final = ("train/critic_loss", "train/actor_loss", "train/ent_coef", "train/ent_coef_loss")
"""What a gradient step shows, in the order in which it returns it."""

LOG_TWO: Final = math.log(2.0)
HALF_LOG_TWO_PI: Final = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class Draw:
    """B actions of the actor, and what their slopes are made of.

    Attributes:
        actions: float32 [B, D], in [-1, 1].
        log_probs: float32 [B, 1], logarithms of their densities there.
        offsets: float32 [B, D], by how much each missed its mean before tanh.
        follows: bool [B, D], where the deviation is what the actor says, and not cut off.
    """

    actions: Tensor
    log_probs: Tensor
    offsets: Tensor
    follows: Tensor


def draw_actions(outputs: Tensor, noise: Tensor) -> Draw:
    """Normally distributed numbers after tanh, and their density (the paper's appendix C).

    Args:
        outputs: float32 [B, 2 D], of the actor: means, then log-standard-deviations.
        noise: float32 [B, D], standard normal.
    """
    means, given = outputs.chunk(2, dim=1)
    log_std = given.clamp(MIN_LOG_STD, MAX_LOG_STD)
    offsets = log_std.exp() * noise
    raw = means + offsets
    # log(1 - tanh²), without the cancellation that the formula has far out.
    log_slopes = 2.0 * (LOG_TWO - raw - functional.softplus(-2.0 * raw))
    each = -0.5 * noise.square() - HALF_LOG_TWO_PI - log_std - log_slopes
    return Draw(raw.tanh(), each.sum(dim=1, keepdim=True), offsets, log_std == given)


def soft_targets(batch: Transitions, following: Draw, values: Tensor, ent_coef: Tensor) -> Tensor:
    """What the critics of B transitions should say, float32 [B, 1]: equations 3 and 5.

    Args:
        batch: B transitions.
        following: The actor's actions in the next states.
        values: float32 [B, 1], of those, the smaller one of the two target critics'.
        ent_coef: The weight of the entropy, a scalar.
    """
    soft_values = values - ent_coef * following.log_probs
    return torch.addcmul(batch.returns, batch.discounts, soft_values)


def actor_slopes(draw: Draw, value_slopes: Tensor, ent_coef: Tensor) -> Tensor:
    """The derivative of mean(α log π - Q) by the actor's outputs, float32 [B, 2 D]: equation 10.

    Through the raw action: d log π / d raw = 2 tanh(raw), where the noise stays as it was, and
    d tanh / d raw = 1 - tanh².

    Args:
        draw: The actor's actions.
        value_slopes: float32 [B, D], of their values by the actions.
        ent_coef: The weight of the entropy α, a scalar.
    """
    size, actions = len(draw.actions), draw.actions
    by_raw = 2.0 * ent_coef * actions - value_slopes * (1.0 - actions.square())
    by_log_std = (by_raw * draw.offsets - ent_coef) * draw.follows
    return torch.cat((by_raw, by_log_std), dim=1).div_(size)


class TwinCritics:
    """Two networks from observations and actions to values, of which the smaller value counts.

    Fujimoto et al. 2018 (arXiv:1802.09477), clipped double Q-learning.

    Attributes:
        vector: float32 [n], all parameters of the first network, then of the second.
        gradient: float32 [n], what `regress` last wrote, in the order of `vector`.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, network: NetworkSpec, generator: torch.Generator
    ) -> None:
        """Draw both.

        Args:
            obs_dim: Width of the observations.
            action_dim: Width of the actions.
            network: Hidden sizes and activation.
            generator: The only source of randomness.
        """
        sizes = (obs_dim + action_dim, *network.critic_own_sizes, 1)
        count = parameter_count(sizes)
        whole = Parameters.zeros(2 * count)
        self.vector, self.gradient = whole.vector, whole.gradient
        self._networks = [
            MLP(
                f"qf{index}",
                sizes,
                activation=network.activation,
                # Orthogonal, unlike DQN's: Pendulum is learned in 3500 steps instead of 4500.
                output_gain=VALUE_GAIN,
                generator=generator,
                parameters=part,
            )
            for index, part in enumerate(whole.split(count, count))
        ]

    def __call__(self, inputs: Tensor) -> Tensor:
        """The smaller values float32 [B, 1] of inputs float32 [B, obs_dim + action_dim]."""
        first, second = (network(inputs) for network in self._networks)
        return torch.minimum(first, second)

    def regress(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Overwrite `gradient` with that of half the mean squared error, the two's added up.

        Args:
            inputs: float32 [B, obs_dim + action_dim].
            targets: float32 [B, 1].

        Returns:
            That loss, a scalar: equation 5 for both.
        """
        loss = torch.zeros(())
        for network in self._networks:
            trace = network.trace(inputs)
            errors = trace[-1] - targets
            network.backpropagate(trace, errors / len(errors))
            loss += 0.5 * errors.square().mean()
        return loss

    def with_slopes(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What calling it gives, and the derivative of each value by its row of `inputs`.

        Returns:
            float32 [B, 1] and [B, obs_dim + action_dim]; of equal values the first network's slope.
        """
        traces = [network.trace(inputs) for network in self._networks]
        first, second = (trace[-1] for trace in traces)
        of_first = (first <= second).float()
        slopes = [
            network.input_gradient(trace, share)
            for network, trace, share in zip(
                self._networks, traces, (of_first, 1.0 - of_first), strict=True
            )
        ]
        return torch.minimum(first, second), slopes[0].add_(slopes[1])


class SAC(OffPolicy):
    """SAC as `base.Algorithm` has it.

    Attributes:
        actor: From observations to means and log-standard-deviations.
        critics: From observations with actions in [-1, 1] to values.
        targets: The same networks, which follow slowly.
    """

    def __init__(self, spec: ClientSpec, parameters: SACParameters, *, seed: int) -> None:
        """Draw the networks, the targets equal to the critics.

        Args:
            spec: The client's spaces and network.
            parameters: Hyperparameters; `parameters.seed` is the caller's to resolve.
            seed: Of the weights, and of what is drawn from the buffer and by the actor.

        Raises:
            ConfigError: If the action space is no Box, or there is no memory for the buffer.
        """
        if not isinstance(spec.action_space, Box):
            raise ConfigError("SAC needs a Box as its action space", path="action_space")
        obs_dim, action_dim = flat_dim(spec.observation_space), flat_dim(spec.action_space)
        generator = torch.Generator().manual_seed(seed)
        buffer = ReplayBuffer(
            parameters.buffer_size,
            obs_dim,
            action_dim=action_dim,
            gamma=parameters.gamma,
            headroom=headroom_for(parameters),
        )
        super().__init__("SAC", parameters, buffer, obs_dim, generator)
        self._parameters = parameters
        self._action_dim = action_dim
        self._target_entropy = parameters.target_entropy_of(action_dim)
        self._make_actor(spec, generator)
        self.critics, self.targets = (
            TwinCritics(obs_dim, action_dim, spec.network, generator) for _ in range(2)
        )
        self.targets.vector.copy_(self.critics.vector)
        self._vectors = {"pi": self._acting.vector, "qf": self.critics.vector}
        self._actor_adam, self._critic_adam = (
            make_adam({name: vector}, learning_rate=parameters.learning_rate, eps=ADAM_EPSILON)
            for name, vector in self._vectors.items()
        )

    def _make_actor(self, spec: ClientSpec, generator: torch.Generator) -> None:
        """The actor, and behind it the logarithm of the temperature: one Adam steps both."""
        obs_dim, outputs = flat_dim(spec.observation_space), 2 * self._action_dim
        count = parameter_count((obs_dim, *spec.network.hidden_sizes, outputs))
        self._acting = Parameters.zeros(count + 1)
        actor, self._log_ent_coef = self._acting.split(count, 1)
        self.actor = make_actor(obs_dim, outputs, spec.network, generator, parameters=actor)
        # 0 has no logarithm, but then this is not read, either.
        self._log_ent_coef.vector.fill_(math.log(self._parameters.initial_ent_coef or 1.0))

    def export(self) -> PolicyExport:
        """See `Algorithm.export`."""
        return PolicyExport(
            weights=Weights.from_tensors(self.actor.tensors()),
            extras=BehaviorExtras(normalization=self._normalization(), head="state_gaussian"),
        )

    # The gradient steps --------------------------------------------------------------------------

    def _train(self, steps: range) -> dict[str, float]:
        """See `OffPolicy._train`."""
        self._check_observed()
        parameters = self._parameters
        rows = [
            self._descend(parameters.learning_rate_at(step))
            for step in steps
            for _ in range(parameters.gradient_steps_at(step))
        ]
        return self._means(rows)

    def _check_observed(self) -> None:
        """Raise NonFiniteError while it is known which trajectories are to blame."""
        for observations in torch.split(self._observed(), OBSERVATIONS_AT_ONCE):
            outputs = self.actor(observations)
            actions = outputs[:, : self._action_dim].tanh()
            values = self.critics(torch.cat((observations, actions), dim=1))
            largest = max(float(outputs.abs().max()), float(values.abs().max()))
            if not largest < LARGEST_VALUE:
                raise NonFiniteError(
                    f"the value of an observation became {largest:g}; scale or normalise "
                    "observations"
                )

    def _descend(self, learning_rate: float) -> Tensor:
        """One step of the critics, the actor and the temperature (the paper's algorithm 1).

        Returns:
            float32 [4], see `METRICS`, from before the step.
        """
        size, ent_coef = self._parameters.batch_size, self._ent_coef()
        batch = self._gather(self.buffer.draw(size, self._generator))
        noise = torch.randn(2, size, self._action_dim, generator=self._generator)

        acting = self.actor.trace(batch.observations)
        drawn = draw_actions(acting[-1], noise[0])
        following = draw_actions(self.actor(batch.next_observations), noise[1])
        values = self.targets(torch.cat((batch.next_observations, following.actions), dim=1))
        targets = soft_targets(batch, following, values, ent_coef)
        taken = torch.cat((batch.observations, batch.actions.tanh()), dim=1)
        critic_loss = self.critics.regress(taken, targets)
        self._step(self._critic_adam, learning_rate)

        chosen = torch.cat((batch.observations, drawn.actions), dim=1)
        values, slopes = self.critics.with_slopes(chosen)
        by_outputs = actor_slopes(drawn, slopes[:, -self._action_dim :], ent_coef)
        self.actor.backpropagate(acting, by_outputs)
        excess = -(drawn.log_probs.mean() + self._target_entropy)
        ent_coef_loss = self._log_ent_coef.vector[0] * excess  # equation 18, departure 1
        if self._parameters.learns_ent_coef:
            self._log_ent_coef.gradient.fill_(excess)
        self._step(self._actor_adam, learning_rate)

        self.n_updates += 1
        if self.n_updates % self._parameters.target_update_interval == 0:
            self.targets.vector.lerp_(self.critics.vector, self._parameters.tau)
        actor_loss = (ent_coef * drawn.log_probs - values).mean()
        return torch.stack((critic_loss, actor_loss, ent_coef, ent_coef_loss))

    def _ent_coef(self) -> Tensor:
        """The weight of the entropy as it is now, a scalar."""
        if self._parameters.learns_ent_coef:
            return self._log_ent_coef.vector[0].exp()
        return torch.tensor(self._parameters.initial_ent_coef)

    @staticmethod
    def _step(adam: torch.optim.Adam, learning_rate: float) -> None:
        adam.param_groups[0]["lr"] = learning_rate
        adam.step()

    def _means(self, rows: Sequence[Tensor]) -> dict[str, float]:
        """Over the gradient steps of one update; nothing before the first one."""
        if not rows:
            return {}
        means = torch.stack(tuple(rows)).double().mean(dim=0).tolist()
        found = dict(zip(METRICS, means, strict=True))
        if not self._parameters.learns_ent_coef:
            del found["train/ent_coef_loss"]
        return found

    # Resuming ------------------------------------------------------------------------------------

    def _acting_tensors(self) -> dict[str, NDArray[np.float32]]:
        """See `OffPolicy._acting_tensors`."""
        return self.actor.tensors()

    def _tensors(self) -> dict[str, Tensor]:
        """See `OffPolicy._tensors`."""
        tensors = {**self._vectors, "qf.target": self.targets.vector}
        for adam, name in ((self._actor_adam, "pi"), (self._critic_adam, "qf")):
            tensors |= moments(adam, {name: self._vectors[name]})
        return tensors
