"""What an actor's outputs say about the actions that were taken, for each kind of action.

An object is made for each minibatch of B steps, from the outputs, the actions and the masks. Its
`log_probs` and `entropy_losses` go into a loss, and `gradient` leads from there to the outputs:
written out, since autograd takes three times as long as this arithmetic.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import torch
from torch import Tensor

from rl4sys_stream.algorithms.networks import MLP, GaussianActor
from rl4sys_stream.spaces.actions import ActionFormat

__all__ = [
    "ActionDistribution",
    "Categorical",
    "DiagonalGaussian",
    "FactorLayout",
    "MakeDistribution",
    "MultiCategorical",
    "log_policy",
    "make_distribution",
]

FORBIDDEN_LOGIT: Final = -1e9
"""Finite, so that 0 · log 0 is 0 in the entropy; its exponential is exactly 0."""

LOG_2_PI: Final = math.log(2.0 * math.pi)


class ActionDistribution(Protocol):
    """A policy at B steps, and the actions that were taken there.

    Attributes:
        log_probs: float32 [B, 1], of the whole action: a probability, or a density.
        entropy_losses: float32 [B, 1], each step's entropy, negated.
    """

    log_probs: Tensor
    entropy_losses: Tensor

    def gradient(self, by_log_probs: Tensor, by_entropy_losses: float) -> Tensor:
        """Of a loss by the actor's outputs, float32 [B, outputs].

        Where the actor has parameters beside its network, theirs is written on the way.

        Args:
            by_log_probs: float32 [B, 1], the loss's derivative by `log_probs`.
            by_entropy_losses: Its derivative by each of `entropy_losses`.
        """
        ...


MakeDistribution = Callable[[Tensor, Tensor, Tensor | None], ActionDistribution]
"""From outputs float32 [B, outputs], actions and masks (None: everything is allowed)."""


def log_policy(logits: Tensor, masks: Tensor | None) -> Tensor:
    """Log-probabilities float32 [B, n_actions]; forbidden actions have probability 0.

    Huang, Ontañón 2022, A Closer Look at Invalid Action Masking in Policy Gradient Algorithms
    (arXiv:2006.14171).
    """
    if masks is not None:
        logits = logits.masked_fill(~masks, FORBIDDEN_LOGIT)
    return torch.log_softmax(logits, dim=1)


class Categorical:
    """One of n actions; outputs are logits [B, n], actions int64 [B, 1], masks bool [B, n]."""

    def __init__(self, outputs: Tensor, actions: Tensor, masks: Tensor | None) -> None:
        """See `MakeDistribution`."""
        log_pi = log_policy(outputs, masks)
        self._actions = actions
        self._pi = log_pi.exp()
        self._information = self._pi * log_pi
        self.log_probs = log_pi.gather(1, actions)
        self.entropy_losses = self._information.sum(dim=1, keepdim=True)

    def gradient(self, by_log_probs: Tensor, by_entropy_losses: float) -> Tensor:
        """See `ActionDistribution.gradient`."""
        # d log pi(a) / d logits = onehot(a) - pi.
        by_logits = (-by_log_probs * self._pi).scatter_add_(1, self._actions, by_log_probs)
        if by_entropy_losses:
            # The derivative of Σ pi log pi is pi (log pi - Σ pi log pi).
            change = self._information - self._pi * self.entropy_losses
            by_logits += change * by_entropy_losses
        return by_logits


class FactorLayout:
    """Where the logits of K independent choices stand in the outputs.

    Factors of unequal sizes are filled up to the largest, so that all are worked on at once.

    Attributes:
        nvec: How many values each factor has.
    """

    def __init__(self, nvec: tuple[int, ...]) -> None:
        """Work out the positions."""
        self.nvec = nvec
        self._widest = max(nvec)
        self._equal = min(nvec) == self._widest
        outside = sum(nvec)  # the column that `split` appends
        rows, start = [], 0
        for n in nvec:
            rows.append([*range(start, start + n), *[outside] * (self._widest - n)])
            start += n
        self._columns = torch.tensor(rows).flatten()
        self._places = (self._columns != outside).nonzero().flatten()

    def split(self, outputs: Tensor) -> Tensor:
        """[B, sum(nvec)] -> [B, K, max(nvec)], filled up with what has probability 0."""
        if not self._equal:
            padded = torch.nn.functional.pad(outputs, (0, 1), value=FORBIDDEN_LOGIT)
            outputs = padded.index_select(1, self._columns)
        return outputs.view(len(outputs), len(self.nvec), self._widest)

    def join(self, split: Tensor) -> Tensor:
        """[B, K, max(nvec)] -> [B, sum(nvec)], without what `split` filled up."""
        flat = split.flatten(start_dim=1)
        return flat if self._equal else flat.index_select(1, self._places)


class MultiCategorical:
    """K independent choices; log-probabilities and entropies are the sums of theirs.

    Outputs are logits [B, sum(nvec)], actions int64 [B, K], masks bool [B, sum(nvec)].
    """

    def __init__(
        self, layout: FactorLayout, outputs: Tensor, actions: Tensor, masks: Tensor | None
    ) -> None:
        """See `MakeDistribution`."""
        if masks is not None:
            outputs = outputs.masked_fill(~masks, FORBIDDEN_LOGIT)
        log_pi = torch.log_softmax(layout.split(outputs), dim=2)  # [B, K, n]
        self._layout = layout
        self._actions = actions.unsqueeze(2)  # [B, K, 1]
        self._pi = log_pi.exp()
        self._information = self._pi * log_pi
        self._factor_losses = self._information.sum(dim=2, keepdim=True)  # [B, K, 1]
        self.log_probs = log_pi.gather(2, self._actions).sum(dim=1)
        self.entropy_losses = self._factor_losses.sum(dim=1)

    def gradient(self, by_log_probs: Tensor, by_entropy_losses: float) -> Tensor:
        """See `ActionDistribution.gradient`."""
        by_each = by_log_probs.unsqueeze(2)  # [B, 1, 1]: each factor's weighs as their sum's
        by_logits = (-by_each * self._pi).scatter_add_(
            2, self._actions, by_each.expand_as(self._actions)
        )
        if by_entropy_losses:
            change = self._information - self._pi * self._factor_losses
            by_logits += change * by_entropy_losses
        return self._layout.join(by_logits)


class DiagonalGaussian:
    """D independent normal distributions of the raw action; deviations are the actor's own.

    Outputs are means [B, D], actions float32 [B, D], masks always None. The densities are of raw
    actions also where these are squashed: what tanh adds depends on the action alone, and such an
    action's entropy has no closed form.
    """

    def __init__(
        self,
        log_std: Tensor,
        log_std_gradient: Tensor,
        outputs: Tensor,
        actions: Tensor,
        _masks: Tensor | None = None,
    ) -> None:
        """See `MakeDistribution`; `gradient` also overwrites `log_std_gradient`, float32 [D]."""
        dim = len(log_std)
        self._log_std_gradient = log_std_gradient
        self._inverse_std = (-log_std).exp()
        self._z = (actions - outputs) * self._inverse_std
        self._squares = self._z.square()
        # ln N(a; μ, σ²) = -z²/2 - ln σ - ln(2π)/2 with z = (a - μ)/σ; H = ln σ + (1 + ln 2π)/2.
        log_scale = log_std.sum()
        exponents = self._squares.sum(dim=1, keepdim=True) * -0.5
        self.log_probs = exponents - (log_scale + 0.5 * dim * LOG_2_PI)
        self.entropy_losses = (-log_scale - 0.5 * dim * (1.0 + LOG_2_PI)).expand(len(outputs), 1)

    def gradient(self, by_log_probs: Tensor, by_entropy_losses: float) -> Tensor:
        """See `ActionDistribution.gradient`."""
        by_log_std = (by_log_probs * (self._squares - 1.0)).sum(dim=0)
        self._log_std_gradient.copy_(by_log_std - by_entropy_losses * len(by_log_probs))
        return by_log_probs * self._z * self._inverse_std


def make_distribution(actions: ActionFormat, actor: MLP) -> MakeDistribution:
    """What to make of the outputs of `actor` where actions are such.

    Args:
        actions: The client's.
        actor: With `actions.choices` outputs; for real-valued actions `actions.dim` and deviations.
    """
    if isinstance(actor, GaussianActor):
        return partial(DiagonalGaussian, actor.log_std, actor.log_std_gradient)
    if actions.single:
        return Categorical
    return partial(MultiCategorical, FactorLayout(actions.nvec))
