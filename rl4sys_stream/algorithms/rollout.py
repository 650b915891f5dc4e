"""From trajectories to the columns that one update trains on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.gae import bootstrap_value, gae
from rl4sys_stream.algorithms.normalize import normalize
from rl4sys_stream.algorithms.vtrace import vtrace
from rl4sys_stream.policy.extras import ObservationNormalization
from rl4sys_stream.policy.heads import log_one_minus_tanh_squared
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["Correction", "Rollout", "make_rollout", "observed_inputs"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Steps to train on, or one minibatch of them. Columns keep an axis of length 1.

    Attributes:
        observations: float32 [N, obs_dim], normalised if the algorithm normalises.
        actions: Raw ones: int64 [N, 1] or [N, K], or float32 [N, D].
        log_probs: float32 [N, 1], by the policies that acted. Of real vectors without what a
            squash adds, which is the same for every policy.
        values: float32 [N, 1], by the critic before the update.
        advantages: float32 [N, 1].
        returns: float32 [N, 1], what the critic learns.
        masks: bool [N, choices], True where allowed; None if everything was.
        initial_kl: float32 [N, 1], each step's share of the approximate KL before the update; None
            where nobody asks.
        priors: float32 [N, choices], what applications added to the logits; None if nothing.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    masks: Tensor | None
    initial_kl: Tensor | None = None
    priors: Tensor | None = None

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

        def split_optional(column: Tensor | None) -> Sequence[Tensor | None]:
            return [None] * parts if column is None else split(column)

        columns = zip(
            split(self.observations),
            split(self.actions),
            split(self.log_probs),
            split(self.values),
            split(self.advantages),
            split(self.returns),
            split_optional(self.masks),
            split_optional(self.initial_kl),
            split_optional(self.priors),
            strict=True,
        )
        for column in columns:
            yield Rollout(*column)


@dataclass(frozen=True, slots=True)
class Correction:
    """How the advantages and returns of steps of lagging policies are corrected, by V-trace.

    Attributes:
        log_probs: From steps to the log-probabilities float32 [N, 1] of their actions by the
            learner's policy before the update.
        rho_bar: See `vtrace`.
        c_bar: See `vtrace`.
    """

    log_probs: Callable[[Rollout], Tensor]
    rho_bar: float
    c_bar: float


def make_rollout(
    trajectories: Sequence[Trajectory],
    critic: Callable[[Tensor, Tensor | None], Tensor],
    normalization: ObservationNormalization | None,
    *,
    gamma: float,
    gae_lambda: float,
    correction: Correction | None = None,
    squash: bool = False,
) -> Rollout:
    """The steps of all `trajectories` in their order, with advantages by `critic` as it is now.

    Args:
        trajectories: At least one, of one client; whole or in parts, of any lengths.
        critic: From normalised observations float32 [N, obs_dim], and their masks, to values
            float32 [N, 1]. Where nobody said what is allowed, everything counts as allowed.
        normalization: What to do to observations first.
        gamma: Discount.
        gae_lambda: λ of generalised advantage estimation.
        correction: V-trace in its place; None: every step counts as the learner's own.
        squash: Whether the logged densities are those of tanh of the actions.
    """
    steps = sum(len(trajectory.actions) for trajectory in trajectories)
    observations = torch.from_numpy(_observations(trajectories, normalization))
    values = critic(observations, _masks_of_all(trajectories))
    actions = np.concatenate([trajectory.actions for trajectory in trajectories])
    rollout = Rollout(
        observations=observations[:steps],
        actions=torch.from_numpy(actions.reshape(steps, -1)),
        log_probs=_log_probs(trajectories, squash=squash),
        values=values[:steps],
        advantages=torch.empty(steps, 1),
        returns=torch.empty(steps, 1),
        masks=_masks(trajectories),
        priors=_priors(trajectories),
    )
    pieces = _pieces(trajectories, values.numpy()[:, 0])
    if correction is None:
        return _estimate(rollout, pieces, gamma, gae_lambda)
    return _correct(rollout, pieces, gamma, gae_lambda, correction)


def _observations(
    trajectories: Sequence[Trajectory], normalization: ObservationNormalization | None
) -> NDArray[np.float32]:
    """The observations of all steps, then the final ones that exist; float32 [N + F, obs_dim]."""
    rows = [trajectory.observations for trajectory in trajectories]
    rows += [t.final_observation[None] for t in trajectories if t.final_observation is not None]
    observations = np.concatenate(rows)
    return observations if normalization is None else normalize(observations, normalization)


def _log_probs(trajectories: Sequence[Trajectory], *, squash: bool) -> Tensor:
    """Float32 [N, 1], as the policies' distributions of raw actions have them."""
    parts = [trajectory.log_probs for trajectory in trajectories]
    if squash:
        # The inverse of what the policy did: ln p(tanh raw) = ln p(raw) - Σ ln(1 - tanh² raw).
        parts = [
            (log_probs + log_one_minus_tanh_squared(t.actions.astype(np.float64)).sum(axis=1))
            for log_probs, t in zip(parts, trajectories, strict=True)
        ]
    return _column(np.concatenate(parts).astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Piece:
    """One trajectory's place in the rollout and its values."""

    place: slice
    rewards: NDArray[np.float32]
    values: NDArray[np.float32]
    bootstrap: float


def _pieces(trajectories: Sequence[Trajectory], values: NDArray[np.float32]) -> list[_Piece]:
    """With the values, float32 [N + F], in the order of `_observations`."""
    final_values = iter(values[sum(len(t.actions) for t in trajectories) :].tolist())
    pieces: list[_Piece] = []
    start = 0
    for trajectory in trajectories:
        place = slice(start, start + len(trajectory.actions))
        final_value = None if trajectory.final_observation is None else next(final_values)
        bootstrap = bootstrap_value(trajectory.end, final_value)
        pieces.append(_Piece(place, trajectory.rewards, values[place], bootstrap))
        start = place.stop
    return pieces


def _estimate(
    rollout: Rollout, pieces: Sequence[_Piece], gamma: float, gae_lambda: float
) -> Rollout:
    """With the advantages of `gae`."""
    parts = [
        gae(p.rewards, p.values, p.bootstrap, gamma=gamma, gae_lambda=gae_lambda) for p in pieces
    ]
    advantages = _column(np.concatenate(parts))
    return replace(rollout, advantages=advantages, returns=advantages + rollout.values)


def _correct(
    rollout: Rollout,
    pieces: Sequence[_Piece],
    gamma: float,
    gae_lambda: float,
    correction: Correction,
) -> Rollout:
    """With the advantages and returns of `vtrace`."""
    own = correction.log_probs(rollout)
    log_ratios = (own - rollout.log_probs).numpy()[:, 0]
    parts = [
        vtrace(
            p.rewards,
            p.values,
            p.bootstrap,
            log_ratios[p.place],
            gamma=gamma,
            gae_lambda=gae_lambda,
            rho_bar=correction.rho_bar,
            c_bar=correction.c_bar,
        )
        for p in pieces
    ]
    return replace(
        rollout,
        advantages=_column(np.concatenate([part.advantages for part in parts])),
        returns=_column(np.concatenate([part.returns for part in parts])),
    )


def _masks(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """Masks bool [N, choices], all True where a trajectory has none; None if none has any."""
    return _filled_up([(len(t.actions), t.masks) for t in trajectories])


def _masks_of_all(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """As `_masks`, and then those of the final observations; bool [N + F, choices]."""
    parts = [(len(t.actions), t.masks) for t in trajectories]
    parts += [
        (1, None if t.final_mask is None else t.final_mask[None])
        for t in trajectories
        if t.final_observation is not None
    ]
    return _filled_up(parts)


def _filled_up(parts: Sequence[tuple[int, NDArray[np.bool_] | None]]) -> Tensor | None:
    """The masks of consecutive rows; all True for so many rows where there is None."""
    widths = {masks.shape[1] for _, masks in parts if masks is not None}
    if not widths:
        return None
    (choices,) = widths
    filled = [np.ones((n, choices), np.bool_) if masks is None else masks for n, masks in parts]
    return torch.from_numpy(np.concatenate(filled))


def _priors(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """Priors float32 [N, choices], 0 where a trajectory has none; None if none has any."""
    widths = {t.priors.shape[1] for t in trajectories if t.priors is not None}
    if not widths:
        return None
    (choices,) = widths
    parts = [
        np.zeros((len(t.actions), choices), np.float32) if t.priors is None else t.priors
        for t in trajectories
    ]
    return torch.from_numpy(np.concatenate(parts))


def observed_inputs(trajectories: Sequence[Trajectory], input_dim: int) -> NDArray[np.float32]:
    """What the actor was shown: float32 [M, input_dim], of items those that exist.

    Args:
        trajectories: At least one, of one client.
        input_dim: Of the actor; see `ClientSpec.input_dim`.
    """
    rows = np.concatenate([t.observations for t in trajectories])
    masks = _masks(trajectories)
    if rows.shape[1] == input_dim:
        return rows
    items = rows.reshape(-1, input_dim)
    return items if masks is None else items[masks.numpy().reshape(-1)]


def _column(array: NDArray[np.float32]) -> Tensor:
    """[N] -> [N, 1]."""
    return torch.from_numpy(array).unsqueeze(1)
