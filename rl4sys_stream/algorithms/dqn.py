"""Deep Q-networks for discrete actions with masks.

Mnih et al.: Human-level control through deep reinforcement learning, 2015
(doi:10.1038/nature14236). Read from top to bottom: the loss, the targets, the gradient step,
resuming. Extensions, each behind a switch of `DQNParameters`, as Hessel et al. 2018, Rainbow
(arXiv:1710.02298), has them together:

 1. `double_q`: the online network chooses the action that the target network values.
 2. `dueling`: the network has two streams (networks).
 3. `n_step`: returns of several steps before the bootstrap (replay_buffer.py).
 4. `prioritized_replay`: transitions are drawn by how wrong their value was (priorities.py).

Departures from the paper:

 5. Forbidden actions count neither in the maximum of the bootstrap nor in acting.
 6. The gradient is clipped by its norm, the optimizer is Adam, and the loss is Huber's of the
    temporal-difference error, as in Stable-Baselines3.
 7. The steps before an episode's truncation or a trajectory's cut are bootstrapped, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.adam import make_adam, moments
from rl4sys_stream.algorithms.base import AlgorithmState, PolicyExport
from rl4sys_stream.algorithms.networks import make_q_network
from rl4sys_stream.algorithms.off_policy import OffPolicy, headroom_for
from rl4sys_stream.algorithms.priorities import Priorities
from rl4sys_stream.algorithms.replay_buffer import ReplayBuffer, Transitions
from rl4sys_stream.config import ClientSpec, DQNParameters
from rl4sys_stream.errors import ConfigError, NonFiniteError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.spaces import Discrete, flat_dim
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["DQN", "LossGradient", "dqn_loss"]

ADAM_EPSILON: Final = 1e-8
"""torch's default, and so Stable-Baselines3's for DQN."""

GATHERED_TRANSITIONS: Final = 512
"""Transitions of several gradient steps that are gathered, and valued by the target network, at
once. More would not fit into the processor's caches."""

LARGEST_VALUE: Final = 1e15
"""Observations that are worth more in size are refused. The square of the gradient would not be far
from the largest float32, and in the buffer they would fail any later update that draws them, when
nobody could tell any more where they came from."""

FORBIDDEN_VALUE: Final = -torch.inf
"""Below every value, of which each state has one: some action is always allowed."""


@dataclass(frozen=True, slots=True)
class LossGradient:
    """Where the loss of one minibatch of B transitions falls, and what it is made of.

    Attributes:
        values: float32 [B, 1], the derivative of the loss by the values of the actions taken.
        errors: float32 [B, 1], the temporal-difference errors.
    """

    values: Tensor
    errors: Tensor


def dqn_loss(values: Tensor, targets: Tensor, weights: Tensor | None = None) -> LossGradient:
    """The derivative of the mean Huber loss of `values` - `targets`.

    The loss is half the square of an error up to 1, and grows by 1 from there on (the paper's
    "Training details": "clipping the squared error to be between -1 and 1").

    Args:
        values: float32 [B, 1], of the actions taken, by the online network.
        targets: float32 [B, 1].
        weights: float32 [B, 1], importance weights; None: all 1.
    """
    errors = values - targets
    slopes = errors.clamp(-1.0, 1.0)
    if weights is not None:
        slopes *= weights
    return LossGradient(slopes / len(values), errors)


def _mean_huber(errors: Tensor, weights: Tensor | None) -> float:
    """The loss itself, over the errors of one or several minibatches of one size."""
    sizes = errors.abs()
    losses = torch.where(sizes < 1.0, 0.5 * sizes.square(), sizes - 0.5).double()
    return float((losses if weights is None else losses * weights).mean())


@dataclass(slots=True)
class _Measured:
    """What the gradient steps of one update show, in their order.

    Attributes:
        values: float32 [B, 1] each, of the actions taken, before the step.
        errors: float32 [B, 1] each.
        weights: float32 [B, 1] each, importance weights; empty where there are none.
        norms: Of the gradients, before clipping.
    """

    values: list[Tensor] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Means by their Stable-Baselines3 names; nothing before the first gradient step."""
        if not self.errors:
            return {}
        weights = torch.cat(self.weights) if self.weights else None
        return {
            "train/loss": _mean_huber(torch.cat(self.errors), weights),
            "train/mean_q": float(torch.cat(self.values).mean()),
            "train/grad_norm": float(torch.stack(self.norms).mean()),
        }


class DQN(OffPolicy):
    """DQN as `base.Algorithm` has it.

    Attributes:
        online: From observations to action values.
        target: The same network some time ago.
    """

    def __init__(self, spec: ClientSpec, parameters: DQNParameters, *, seed: int) -> None:
        """Draw the networks, equal to each other.

        Args:
            spec: The client's spaces and network.
            parameters: Hyperparameters; `parameters.seed` is the caller's to resolve.
            seed: Of the weights and of what is drawn from the buffer.

        Raises:
            ConfigError: If the action space is not discrete, or there is no memory for the buffer.
        """
        if not isinstance(spec.action_space, Discrete):
            raise ConfigError("DQN needs a discrete action space", path="action_space")
        obs_dim, n_actions = flat_dim(spec.observation_space), spec.action_space.n
        generator = torch.Generator().manual_seed(seed)
        buffer = ReplayBuffer(
            parameters.buffer_size,
            obs_dim,
            n_step=parameters.n_step,
            gamma=parameters.gamma,
            headroom=headroom_for(parameters),
        )
        super().__init__("DQN", parameters, buffer, obs_dim, generator)
        self._parameters = parameters
        self.online, self.target = (
            make_q_network(obs_dim, n_actions, spec.network, generator, dueling=parameters.dueling)
            for _ in range(2)
        )
        self.target.vector.copy_(self.online.vector)
        self._vectors = {"pi": self.online.vector}
        self._optimizer = make_adam(
            self._vectors, learning_rate=parameters.learning_rate, eps=ADAM_EPSILON
        )
        self._priorities: Priorities | None = None
        if parameters.prioritized_replay:
            alpha = parameters.prioritized_replay_alpha
            self._priorities = Priorities(buffer.slots, alpha)

    def export(self) -> PolicyExport:
        """See `Algorithm.export`. Of a dueling network the advantages act: the same greedily."""
        return PolicyExport(
            weights=Weights.from_tensors(self.online.tensors()),
            extras=BehaviorExtras(
                normalization=self._normalization(),
                epsilon=self._exploration_rate,
                head="epsilon_greedy",
            ),
        )

    @property
    def _exploration_rate(self) -> float:
        return self._parameters.epsilon_at(self.num_timesteps)

    # The gradient steps --------------------------------------------------------------------------

    def _train(self, steps: range) -> dict[str, float]:
        """See `OffPolicy._train`."""
        self._check_observed()
        self._follow_buffer()
        parameters, measured = self._parameters, _Measured()
        due: list[int] = []  # for each gradient step, the environment step that it belongs to
        for step in steps:
            if step % parameters.target_update_interval == 0:
                self._descend(due, measured)
                due = []
                self._move_target()
            due += [step] * parameters.gradient_steps_at(step)
        self._descend(due, measured)
        return measured.metrics() | {"rollout/exploration_rate": self._exploration_rate}

    def _check_observed(self) -> None:
        """Raise NonFiniteError while it is known which trajectories are to blame."""
        for observations in torch.split(self._observed(), GATHERED_TRANSITIONS):
            largest = float(self.online(observations).abs().max())
            if not largest < LARGEST_VALUE:  # NaN is not, either
                raise NonFiniteError(
                    f"the value of an observation became {largest:g}; scale or normalise "
                    "observations"
                )

    def _move_target(self) -> None:
        """Towards the online network by `tau`, or all the way."""
        if self._parameters.tau == 1.0:
            self.target.vector.copy_(self.online.vector)
        elif self.n_updates:  # until then they are equal
            self.target.vector.lerp_(self.online.vector, self._parameters.tau)

    def _descend(self, due: Sequence[int], measured: _Measured) -> None:
        """Do gradient steps, all with the target network as it is, in blocks."""
        block = max(1, GATHERED_TRANSITIONS // self._parameters.batch_size)
        if self._priorities is not None:
            block = 1  # each gradient step changes what the next one draws
        for start in range(0, len(due), block):
            self._descend_block(due[start : start + block], measured)

    def _descend_block(self, due: Sequence[int], measured: _Measured) -> None:
        size, parameters = self._parameters.batch_size, self._parameters
        slots, weights = self._draw(len(due) * size, parameters.beta_at(due[0]))
        drawn = self._gather(slots)
        following = self.target(drawn.next_observations)
        parts = zip(due, drawn.minibatches(size), torch.split(following, size), strict=True)
        for step, batch, next_values in parts:
            targets = torch.addcmul(
                batch.returns, batch.discounts, self._bootstrap(batch, next_values)
            )
            trace = self.online.trace(batch.observations)
            values = trace[-1].gather(1, batch.actions)
            loss = dqn_loss(values, targets, weights)
            slopes = torch.zeros_like(trace[-1]).scatter_(1, batch.actions, loss.values)
            self.online.backpropagate(trace, slopes)
            measured.norms.append(self._step(parameters.learning_rate_at(step)))
            measured.values.append(values)
            measured.errors.append(loss.errors)
        if self._priorities is not None and weights is not None:
            self._priorities.update(slots, measured.errors[-1])
            measured.weights.append(weights)

    def _draw(self, count: int, beta: float) -> tuple[Tensor, Tensor | None]:
        """Slots int64 [count], and their importance weights float32 [count, 1] if they have any."""
        if self._priorities is None:
            return self.buffer.draw(count, self._generator), None
        return self._priorities.draw(count, beta, self._generator)  # extension 4

    def _bootstrap(self, batch: Transitions, next_values: Tensor) -> Tensor:
        """The value float32 [B, 1] of the next states.

        Args:
            batch: B transitions.
            next_values: float32 [B, n_actions], of their next states, by the target network.
        """
        if not self._parameters.double_q:
            return _forbid(next_values, batch.next_masks).amax(dim=1, keepdim=True)
        preferences = _forbid(self.online(batch.next_observations), batch.next_masks)
        return next_values.gather(1, preferences.argmax(dim=1, keepdim=True))  # extension 1

    def _step(self, learning_rate: float) -> Tensor:
        """One step of Adam; returns the gradient's norm before clipping, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(self.online.gradient)
        shrink = (self._parameters.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        self.online.gradient.mul_(shrink)  # departure 6
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        self.n_updates += 1
        return norm

    # Resuming ------------------------------------------------------------------------------------

    def load_state(self, state: AlgorithmState) -> None:
        """See `Algorithm.load_state`. After a restart all priorities are as of new steps."""
        super().load_state(state)
        if self._priorities is not None:
            self._priorities.recall(self.buffer.mark)
            self._priorities.largest = state.numbers["replay.largest_error"]
        self._follow_buffer()

    def _follow_buffer(self) -> None:
        if self._priorities is not None:
            buffer = self.buffer
            self._priorities.follow(buffer.positions, buffer.slots, buffer.mark)

    def _numbers(self) -> dict[str, float]:
        """See `OffPolicy._numbers`."""
        largest = 1.0 if self._priorities is None else self._priorities.largest
        return {"replay.largest_error": largest}

    def _acting_tensors(self) -> dict[str, NDArray[np.float32]]:
        """See `OffPolicy._acting_tensors`."""
        return self.online.tensors()

    def load_policy(self, policy: PolicyExport) -> None:
        """See `Algorithm.load_policy`. Both networks are equal at the beginning."""
        super().load_policy(policy)
        self.target.vector.copy_(self.online.vector)

    def _tensors(self) -> dict[str, Tensor]:
        """See `OffPolicy._tensors`."""
        networks = {**self._vectors, "target": self.target.vector}
        return networks | moments(self._optimizer, self._vectors)


def _forbid(values: Tensor, masks: Tensor | None) -> Tensor:
    """Action values float32 [B, n_actions] that no maximum takes where `masks` is false."""
    return values if masks is None else values.masked_fill(~masks, FORBIDDEN_VALUE)
