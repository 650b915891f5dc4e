"""From trajectories to the columns that one update trains on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.gae import bootstrap_value, gae
from rl4sys_stream.algorithms.networks import MLP
from rl4sys_stream.algorithms.normalize import normalize
from rl4sys_stream.policy.extras import ObservationNormalization
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["MIN_LOG_PROB", "Rollout", "make_rollout"]

MIN_LOG_PROB: Final = -20.0
"""Logged log-probabilities are raised to this, so that no ratio exceeds e^20 and overflows. No
honest agent draws an action of probability 2e-9; a corrupt one must not stop the learner."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Steps to train on, or one minibatch of them. Columns keep an axis of length 1.

    Attributes:
        observations: float32 [N, obs_dim], normalised if the algorithm normalises.
        actions: int64 [N, 1].
        log_probs: float32 [N, 1], logged by the policies that acted.
        values: float32 [N, 1], by the critic before the update.
        advantages: float32 [N, 1].
        returns: float32 [N, 1], advantages + values.
        masks: bool [N, n_actions], True where allowed; None if everything was.
        initial_kl: float32 [N, 1], each step's share of the approximate KL before the update; None
            where nobody asks.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    masks: Tensor | None
    initial_kl: Tensor | None = None

    def minibatches(self, batch_size: int, generator: torch.Generator) -> Iterator["Rollout"]:
        """Every step once, in random order, in parts of about `batch_size`.

        The parts differ by one step at most. Implementations that cut after each `batch_size`
        end with a small part, whose noisy gradient steps as far as the others; where `batch_size`
        divides the steps, the parts are the same.
        """
        steps = len(self.actions)
        parts = max(1, round(steps / batch_size))
        order = torch.randperm(steps, generator=generator)

        # One gather a column and epoch; the minibatches are contiguous views of the result.
        def split(column: Tensor) -> tuple[Tensor, ...]:
            return column[order].tensor_split(parts)

        columns = zip(
            split(self.observations),
            split(self.actions),
            split(self.log_probs),
            split(self.values),
            split(self.advantages),
            split(self.returns),
            [None] * parts if self.masks is None else split(self.masks),
            [None] * parts if self.initial_kl is None else split(self.initial_kl),
            strict=True,
        )
        for column in columns:
            yield Rollout(*column)


def make_rollout(
    trajectories: Sequence[Trajectory],
    critic: MLP,
    normalization: ObservationNormalization | None,
    *,
    gamma: float,
    gae_lambda: float,
) -> Rollout:
    """The steps of all `trajectories` in their order, with advantages by `critic` as it is now.

    Args:
        trajectories: At least one, of one client; whole or in parts, of any lengths.
        critic: From normalised observations to values.
        normalization: What to do to observations first.
        gamma: Discount.
        gae_lambda: λ of generalised advantage estimation.
    """
    steps = sum(len(trajectory.actions) for trajectory in trajectories)
    observations = torch.from_numpy(_observations(trajectories, normalization))
    values: NDArray[np.float32] = critic(observations).numpy()[:, 0]
    advantages = _advantages(trajectories, values, gamma, gae_lambda)
    log_probs = np.concatenate([trajectory.log_probs for trajectory in trajectories])
    return Rollout(
        observations=observations[:steps],
        actions=_column(np.concatenate([trajectory.actions for trajectory in trajectories])),
        log_probs=_column(np.maximum(log_probs, np.float32(MIN_LOG_PROB))),
        values=_column(values[:steps]),
        advantages=_column(advantages),
        returns=_column(advantages + values[:steps]),
        masks=_masks(trajectories),
    )


def _observations(
    trajectories: Sequence[Trajectory], normalization: ObservationNormalization | None
) -> NDArray[np.float32]:
    """The observations of all steps, then the final ones that exist; float32 [N + F, obs_dim]."""
    rows = [trajectory.observations for trajectory in trajectories]
    rows += [t.final_observation[None] for t in trajectories if t.final_observation is not None]
    observations = np.concatenate(rows)
    return observations if normalization is None else normalize(observations, normalization)


def _advantages(
    trajectories: Sequence[Trajectory],
    values: NDArray[np.float32],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Advantages float32 [N] from values float32 [N + F], in the order of `_observations`."""
    final_values = iter(values[sum(len(t.actions) for t in trajectories) :].tolist())
    advantages: list[NDArray[np.float32]] = []
    start = 0
    for trajectory in trajectories:
        stop = start + len(trajectory.actions)
        final_value = None if trajectory.final_observation is None else next(final_values)
        bootstrap = bootstrap_value(trajectory.end, final_value)
        advantages.append(
            gae(
                trajectory.rewards,
                values[start:stop],
                bootstrap,
                gamma=gamma,
                gae_lambda=gae_lambda,
            )
        )
        start = stop
    return np.concatenate(advantages)


def _masks(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """Masks bool [N, n_actions], all True where a trajectory has none; None if none has any."""
    widths = {t.masks.shape[1] for t in trajectories if t.masks is not None}
    if not widths:
        return None
    (n_actions,) = widths
    parts = [
        np.ones((len(t.actions), n_actions), np.bool_) if t.masks is None else t.masks
        for t in trajectories
    ]
    return torch.from_numpy(np.concatenate(parts))


def _column(array: NDArray[np.float32] | NDArray[np.int64]) -> Tensor:
    """[N] -> [N, 1]."""
    return torch.from_numpy(array).unsqueeze(1)
