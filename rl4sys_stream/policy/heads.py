"""From a network's outputs to an action: one head for each way of acting.

A head is immutable and shared by threads. `sample` draws by the numbers that `uniform` gives, each
from [0, 1): the same numbers, the same action, in any language.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import MaskError, ObservationError
from rl4sys_stream.policy.distributions import Categorical, allowed_actions
from rl4sys_stream.spaces.actions import RawAction

__all__ = [
    "LOG_STD_LIMIT",
    "MAX_LOG_STD",
    "MIN_LOG_STD",
    "CategoricalHead",
    "EpsilonGreedyHead",
    "FactorsHead",
    "GaussianHead",
    "Head",
    "StateGaussianHead",
    "log_one_minus_tanh_squared",
]

MIN_LOG_STD: Final = -20.0
MAX_LOG_STD: Final = 2.0
"""Where log-standard-deviations that depend on the state are cut off (Haarnoja et al. 2018)."""

LOG_STD_LIMIT: Final = 80.0
"""Largest magnitude of log-standard-deviations that do not depend on the state: within it, what is
drawn is finite as float32 and so is its density."""

_LOG_TWO: Final = math.log(2.0)
_LOG_TWO_PI: Final = math.log(2.0 * math.pi)
_LARGEST: Final = float(np.finfo(np.float32).max)
"""Log-probabilities travel as float32."""

_Mask = NDArray[np.bool_] | None
_Uniform = Callable[[], float]


class Head(Protocol):
    """All methods raise MaskError and ObservationError as `Categorical` does.

    Args of both: `outputs`, float32 [outputs] of the network; `mask`, bool [choices] or None.
    """

    def sample(
        self, outputs: NDArray[np.float32], mask: _Mask, uniform: _Uniform
    ) -> tuple[RawAction, float]:
        """A drawn raw action, and the natural logarithm of its probability or density."""
        ...

    def greedy(self, outputs: NDArray[np.float32], mask: _Mask) -> tuple[RawAction, float]:
        """The best action, and the logarithm of the probability that `sample` gives it."""
        ...


class CategoricalHead:
    """Logits [n] of one choice."""

    __slots__ = ()

    def sample(
        self, outputs: NDArray[np.float32], mask: _Mask, uniform: _Uniform
    ) -> tuple[int, float]:
        """See `Head.sample`; draws one number."""
        return Categorical.sample_logits(outputs, mask, uniform())

    def greedy(self, outputs: NDArray[np.float32], mask: _Mask) -> tuple[int, float]:
        """See `Head.greedy`."""
        return Categorical.greedy(outputs, mask)


@dataclass(frozen=True, slots=True)
class FactorsHead:
    """Logits [Σ nvec] of several independent choices; their log-probabilities add up.

    Attributes:
        nvec: Choices of each element.
    """

    nvec: tuple[int, ...]

    def sample(
        self, outputs: NDArray[np.float32], mask: _Mask, uniform: _Uniform
    ) -> tuple[NDArray[np.int64], float]:
        """See `Head.sample`; draws a number for each element, in order."""
        return self._each(outputs, mask, lambda o, m: Categorical.sample_logits(o, m, uniform()))

    def greedy(self, outputs: NDArray[np.float32], mask: _Mask) -> tuple[NDArray[np.int64], float]:
        """See `Head.greedy`."""
        return self._each(outputs, mask, Categorical.greedy)

    def _each(
        self,
        outputs: NDArray[np.float32],
        mask: _Mask,
        choose: Callable[[NDArray[np.float32], _Mask], tuple[int, float]],
    ) -> tuple[NDArray[np.int64], float]:
        if mask is not None and mask.shape != outputs.shape:
            raise MaskError(f"the mask has shape {mask.shape}; the choices are {len(outputs)}")
        actions = np.empty(len(self.nvec), np.int64)
        total, start = 0.0, 0
        for index, n in enumerate(self.nvec):
            part = None if mask is None else mask[start : start + n]
            actions[index], log_prob = choose(outputs[start : start + n], part)
            total += log_prob
            start += n
        return actions, total


@dataclass(frozen=True, slots=True)
class EpsilonGreedyHead:
    """Action values [n]: the best one, but with probability ε any allowed one.

    Attributes:
        epsilon: From 0 to 1.
    """

    epsilon: float

    def sample(
        self, outputs: NDArray[np.float32], mask: _Mask, uniform: _Uniform
    ) -> tuple[int, float]:
        """See `Head.sample`; draws one number, and another one to explore."""
        best, allowed = _best(outputs, mask)
        action = best
        if uniform() < self.epsilon:
            action = allowed[int(uniform() * len(allowed))]
        return action, self._log_prob(action == best, len(allowed))

    def greedy(self, outputs: NDArray[np.float32], mask: _Mask) -> tuple[int, float]:
        """See `Head.greedy`; the first of equals."""
        best, allowed = _best(outputs, mask)
        return best, self._log_prob(True, len(allowed))

    def _log_prob(self, is_best: bool, count: int) -> float:
        if not is_best:
            # Not of the quotient, which is 0 for the smallest ε.
            return math.log(self.epsilon) - math.log(count)
        return math.log(self.epsilon / count + (1.0 - self.epsilon))


def _best(values: NDArray[np.float32], mask: _Mask) -> tuple[int, list[int]]:
    if mask is None:
        allowed = list(range(len(values)))
    else:
        allowed = [a for a, ok in enumerate(allowed_actions(mask, len(values))) if ok]
    listed = values.tolist()
    best = max(allowed, key=listed.__getitem__)  # the first of equals
    if not all(math.isfinite(listed[action]) for action in allowed):
        raise ObservationError(
            "the action values are not finite for this observation; scale or normalise observations"
        )
    return best, allowed


@dataclass(frozen=True, slots=True)
class GaussianHead:
    """Means [D] of independent normal distributions whose deviations are the model's own.

    Attributes:
        log_std: D of them, from -`LOG_STD_LIMIT` to `LOG_STD_LIMIT`.
        squash: Whether the density is that of tanh of the action.
    """

    log_std: tuple[float, ...]
    squash: bool

    def sample(
        self, outputs: NDArray[np.float32], mask: _Mask, uniform: _Uniform
    ) -> tuple[NDArray[np.float32], float]:
        """See `Head.sample`; draws two numbers for every two elements (Box, Muller 1958)."""
        return _draw(outputs, self.log_std, mask, uniform, squash=self.squash)

    def greedy(
        self, outputs: NDArray[np.float32], mask: _Mask
    ) -> tuple[NDArray[np.float32], float]:
        """See `Head.greedy`: the means, which after tanh are the medians."""
        return _draw(outputs, self.log_std, mask, None, squash=self.squash)


@dataclass(frozen=True, slots=True)
class StateGaussianHead:
    """Means [D] and then log-standard-deviations [D], which depend on the state.

    Attributes:
        squash: Whether the density is that of tanh of the action.
    """

    squash: bool

    def sample(
        self, outputs: NDArray[np.float32], mask: _Mask, uniform: _Uniform
    ) -> tuple[NDArray[np.float32], float]:
        """See `Head.sample` and `GaussianHead.sample`."""
        means, log_std = self._halves(outputs)
        return _draw(means, log_std, mask, uniform, squash=self.squash)

    def greedy(
        self, outputs: NDArray[np.float32], mask: _Mask
    ) -> tuple[NDArray[np.float32], float]:
        """See `Head.greedy` and `GaussianHead.greedy`."""
        means, log_std = self._halves(outputs)
        return _draw(means, log_std, mask, None, squash=self.squash)

    @staticmethod
    def _halves(
        outputs: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], list[float]]:
        dim = len(outputs) // 2
        # In this order NaN stays NaN, and is refused.
        cut = [min(max(x, MIN_LOG_STD), MAX_LOG_STD) for x in outputs[dim:].tolist()]
        return outputs[:dim], cut


# Python's floats, as in `Categorical`: numpy's calls would take most of the time. Overflow shows in
# the density, where it is refused; an application that turns warnings into errors must not meet
# numpy's instead.
@np.errstate(over="ignore")
def _draw(
    means: NDArray[np.float32],
    log_std: Sequence[float],
    mask: _Mask,
    uniform: _Uniform | None,
    *,
    squash: bool,
) -> tuple[NDArray[np.float32], float]:
    """A raw action float32 [D], the means without `uniform`, and its log-density as rounded."""
    if mask is not None:
        raise MaskError("real-valued actions have no mask; leave it out")
    raw, centres = means, means.tolist()
    deviations = [math.exp(x) for x in log_std]
    if uniform is not None:
        normals = _normals(len(centres), uniform)
        drawn = [m + s * n for m, s, n in zip(centres, deviations, normals, strict=True)]
        raw = np.array(drawn, np.float32)
    log_prob = -0.5 * len(centres) * _LOG_TWO_PI - sum(log_std)
    for value, mean, deviation in zip(raw.tolist(), centres, deviations, strict=True):
        z = (value - mean) / deviation
        log_prob -= 0.5 * z * z
        if squash:
            size = abs(value)
            log_prob -= 2.0 * (_LOG_TWO - size - math.log1p(math.exp(-2.0 * size)))
    if not abs(log_prob) <= _LARGEST:  # NaN and infinities included
        raise ObservationError(
            "the policy's means are not finite for this observation, or next to it; scale or "
            "normalise observations"
        )
    return raw, log_prob


def _normals(count: int, uniform: _Uniform) -> list[float]:
    """`count` standard normal numbers."""
    drawn: list[float] = []
    while len(drawn) < count:
        radius = math.sqrt(-2.0 * math.log(1.0 - uniform()))
        angle = 2.0 * math.pi * uniform()
        drawn += (radius * math.cos(angle), radius * math.sin(angle))
    return drawn[:count]


def log_one_minus_tanh_squared(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(1 - tanh²) of each element, without the cancellation that the formula has far out.

    2 (log 2 - |x| - log(1 + exp(-2|x|))), Haarnoja et al. 2018, appendix C, rearranged.
    """
    size = np.abs(raw)
    found: NDArray[np.float64] = 2.0 * (_LOG_TWO - size - np.log1p(np.exp(-2.0 * size)))
    return found
