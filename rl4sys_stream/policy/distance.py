"""How far two models' decisions are apart on the same observations.

What counts is the action, not the weight: the mean Kullback-Leibler divergence from one policy's
actions to the other's, or for action values, which only their order and size make decisions of, the
mean squared error relative to their variance.
"""

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.policy.extras import HeadName
from rl4sys_stream.policy.heads import MAX_LOG_STD, MIN_LOG_STD
from rl4sys_stream.spaces.actions import ActionFormat

__all__ = ["gaussian_divergence", "policy_distance", "relative_error"]

_Floats = NDArray[np.float64]


def policy_distance(
    actions: ActionFormat,
    head: HeadName,
    outputs: NDArray[np.float32],
    others: NDArray[np.float32],
    masks: NDArray[np.bool_] | None = None,
) -> float:
    """From the decisions that `outputs` make to those that `others` make.

    Args:
        actions: The client's.
        head: What makes actions of outputs, see `BehaviorExtras.head`. Of "gaussian" the
            log-standard-deviations stand behind the means, as for "state_gaussian".
        outputs: `float32 [N, outputs]`, of the reference.
        others: Likewise, of the model that is compared with it.
        masks: `bool [N, choices]`, True = allowed, or None.

    Returns:
        Mean divergence in nats over N observations; of action values the relative squared error.
        Infinite where either is not finite.
    """
    first, second = outputs.astype(np.float64), others.astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite is said by the result
        if head == "epsilon_greedy":
            found = relative_error(first, second)
        elif head == "categorical":
            found = _categorical(actions.nvec, first, second, masks)
        elif head == "state_gaussian":
            found = gaussian_divergence(_cut(first), _cut(second))
        else:
            found = gaussian_divergence(first, second)
    return found if np.isfinite(found) else float("inf")


def relative_error(values: _Floats, others: _Floats) -> float:
    """Mean squared error of `others`, divided by the variance of `values`; 0 for equals."""
    error, variance = float(np.square(others - values).mean()), float(values.var())
    if not error:
        return 0.0
    return error / variance if variance else float("inf")


def gaussian_divergence(outputs: _Floats, others: _Floats) -> float:
    """Mean divergence of independent normal distributions, `float64 [N, 2 D]` each.

    Means come first, then log-standard-deviations. Tanh after them changes nothing: divergences
    are invariant under invertible maps.
    """
    mean, log_std = np.split(outputs, 2, axis=1)
    other_mean, other_log_std = np.split(others, 2, axis=1)
    scaled = (mean - other_mean) * np.exp(-other_log_std)
    ratio = log_std - other_log_std
    # KL(N(m, s) || N(m', s')) = (s² / s'² - 1 + (m - m')² / s'²) / 2 - ln(s / s')
    each = 0.5 * (np.expm1(2.0 * ratio) + np.square(scaled)) - ratio
    return float(each.sum(axis=1).mean())


def _cut(outputs: _Floats) -> _Floats:
    """`outputs` with their log-standard-deviations cut as agents cut them."""
    mean, log_std = np.split(outputs, 2, axis=1)
    return np.concatenate((mean, log_std.clip(MIN_LOG_STD, MAX_LOG_STD)), axis=1)


def _categorical(
    nvec: tuple[int, ...], logits: _Floats, others: _Floats, masks: NDArray[np.bool_] | None
) -> float:
    total, start = 0.0, 0
    for n in nvec:
        part = slice(start, start + n)
        mask = None if masks is None else masks[:, part]
        log_p, log_q = _log_softmax(logits[:, part], mask), _log_softmax(others[:, part], mask)
        terms = np.exp(log_p) * (log_p - log_q)
        if mask is not None:
            terms = terms * mask
        total += float(terms.sum(axis=1).mean())
        start += n
    return total


def _log_softmax(logits: _Floats, mask: NDArray[np.bool_] | None) -> _Floats:
    # Of what is forbidden any finite number does; it is multiplied by nothing.
    lowest = logits.min(axis=1, keepdims=True)
    allowed = logits if mask is None else np.where(mask, logits, lowest)
    shifted = allowed - allowed.max(axis=1, keepdims=True)
    powers = np.exp(shifted) if mask is None else np.exp(shifted) * mask
    found: _Floats = shifted - np.log(powers.sum(axis=1, keepdims=True))
    return found
