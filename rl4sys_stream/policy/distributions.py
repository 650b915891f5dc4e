"""Categorical actions from logits, in Python floats where numpy's call overhead would dominate."""

import math
from bisect import bisect_right
from itertools import accumulate, compress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import MaskError, ObservationError

__all__ = ["Categorical", "allowed_actions"]

FEW_ACTIONS: Final = 32
"""Up to here plain Python is faster than numpy."""

_Mask = NDArray[np.bool_] | None


class Categorical:
    """p(a) ∝ exp(logit of a) over the allowed actions; exactly 0 for the others.

    Sums are in double precision. All methods take `logits` as `float32 [n]` and `mask` as
    `bool [n]` (True = allowed) or None, and raise MaskError if the mask has another shape or
    forbids everything, ObservationError if the logits of allowed actions give no distribution
    (NaN or infinite), which finite weights do only for observations of absurd size.
    """

    @staticmethod
    def sample_logits(
        logits: NDArray[np.float32], mask: _Mask, uniform: float
    ) -> tuple[int, float]:
        """An action drawn by inverting the cumulative distribution.

        Args:
            logits: `float32 [n]`.
            mask: `bool [n]` or None.
            uniform: Drawn from [0, 1). The same number gives the same action.

        Returns:
            The action and the natural logarithm of its probability, finite and ≤ 0.
        """
        if len(logits) > FEW_ACTIONS:
            return _sample_many(logits, mask, uniform)
        values = logits.tolist()
        weights, peak = _weigh_few(values, mask)
        cumulated = list(accumulate(weights))
        total = cumulated[-1]
        if not total >= 1.0:  # the peak alone weighs 1; only NaN is not at least that
            raise _no_distribution()
        # The first sum strictly above: an action of weight 0 never lifts it there.
        action = bisect_right(cumulated, uniform * total)
        if action == len(values):
            # Rounding took the threshold up to the total.
            action = max(i for i, weight in enumerate(weights) if weight > 0.0)
        return action, values[action] - peak - math.log(total)

    @staticmethod
    def greedy(logits: NDArray[np.float32], mask: _Mask) -> tuple[int, float]:
        """The most probable allowed action (the first of equals) and its log-probability."""
        log_probs = Categorical.log_probs(logits, mask)
        action = int(log_probs.argmax())
        return action, float(log_probs[action])

    @staticmethod
    def log_probs(logits: NDArray[np.float32], mask: _Mask) -> NDArray[np.float64]:
        """The log-probabilities of all actions, `float64 [n]`; −inf for forbidden ones."""
        shifted, weights = _weigh_many(logits, mask)
        shifted -= math.log(weights.sum())
        return shifted


def allowed_actions(mask: NDArray[np.bool_], n_actions: int) -> list[bool]:
    """`mask` as a list, once it is known to be usable.

    Raises:
        MaskError: If it is not `[n_actions]`, or forbids every action.
    """
    if mask.shape != (n_actions,):
        raise MaskError(f"the mask has shape {mask.shape}; the client has {n_actions} actions")
    allowed: list[bool] = mask.tolist()
    if True not in allowed:
        raise MaskError("the mask forbids every action; leave one, or do not ask for a decision")
    return allowed


def _weigh_few(values: list[float], mask: _Mask) -> tuple[list[float], float]:
    """exp(logit − peak) of each action, and the peak: the largest allowed logit."""
    exp = math.exp
    if mask is None:
        peak = max(values)
        weights = [exp(value - peak) for value in values]
    else:
        allowed = allowed_actions(mask, len(values))
        peak = max(compress(values, allowed))
        weights = [
            exp(value - peak) if ok else 0.0 for value, ok in zip(values, allowed, strict=True)
        ]
    return weights, peak


def _sample_many(logits: NDArray[np.float32], mask: _Mask, uniform: float) -> tuple[int, float]:
    shifted, weights = _weigh_many(logits, mask)
    cumulated = weights.cumsum()
    total = float(cumulated[-1])
    action = int(cumulated.searchsorted(uniform * total, side="right"))
    if action == len(weights):
        action = int(weights.nonzero()[0][-1])
    return action, float(shifted[action]) - math.log(total)


def _weigh_many(
    logits: NDArray[np.float32], mask: _Mask
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits less the largest allowed one (−inf where forbidden), and their exponentials."""
    shifted = logits.astype(np.float64)
    if mask is not None:
        allowed_actions(mask, len(logits))
        shifted[~mask] = -np.inf
    peak = float(shifted.max())
    if not math.isfinite(peak):
        raise _no_distribution()
    shifted -= peak
    return shifted, np.exp(shifted)


def _no_distribution() -> ObservationError:
    return ObservationError(
        "the policy's logits are not finite for this observation; scale or normalise observations"
    )
