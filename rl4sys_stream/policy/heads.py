"""From a network's outputs to an action: one head for each way of acting.

A head is immutable and shared by threads. `sample` draws by the numbers that `uniform` gives, each
from [0, 1): the same numbers, the same action, in any language.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import MaskError, ObservationError
from rl4sys_stream.policy.distributions import Categorical, allowed_actions
from rl4sys_stream.spaces.actions import RawAction

__all__ = [
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

_LOG_TWO_PI: Final = math.log(2.0 * math.pi)

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
            # Rounding may take the product up to the count.
            action = allowed[min(int(uniform() * len(allowed)), len(allowed) - 1)]
        return action, self._log_prob(action == best, len(allowed))

    def greedy(self, outputs: NDArray[np.float32], mask: _Mask) -> tuple[int, float]:
        """See `Head.greedy`; the first of equals."""
        best, allowed = _best(outputs, mask)
        return best, self._log_prob(True, len(allowed))

    def _log_prob(self, is_best: bool, count: int) -> float:
        share = self.epsilon / count
        # Rounding may take the sum above 1.
        return min(math.log(share + (1.0 - self.epsilon) * is_best), 0.0)


def _best(values: NDArray[np.float32], mask: _Mask) -> tuple[int, list[int]]:
    if mask is None:
        allowed = list(range(len(values)))
    else:
        allowed = [a for a, ok in enumerate(allowed_actions(mask, len(values))) if ok]
    listed = values.tolist()
    best = max(allowed, key=listed.__getitem__)  # the first of equals
    if not all(math.isfinite(listed[action]) for action in allowed):
        raise ObservationError("the action values are not finite: the observation is too large")
    return best, allowed


@dataclass(frozen=True, slots=True, eq=False)
class GaussianHead:
    """Means [D] of independent normal distributions whose deviations are the model's own.

    Attributes:
        log_std: float64 [D].
        squash: Whether the density is that of tanh of the action.
    """

    log_std: NDArray[np.float64]
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
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        dim = len(outputs) // 2
        cut = outputs[dim:].astype(np.float64).clip(MIN_LOG_STD, MAX_LOG_STD)
        return outputs[:dim], cut


def _draw(
    means: NDArray[np.float32],
    log_std: NDArray[np.float64],
    mask: _Mask,
    uniform: _Uniform | None,
    *,
    squash: bool,
) -> tuple[NDArray[np.float32], float]:
    """A raw action float32 [D], and its log-density as it was rounded."""
    if mask is not None:
        raise MaskError("real-valued actions have no mask; leave it out")
    if not np.isfinite(means).all():
        raise ObservationError("the policy's means are not finite: the observation is too large")
    std = np.exp(log_std)
    raw = means
    if uniform is not None:
        raw = (means + std * _normals(len(means), uniform)).astype(np.float32)
    z = (raw.astype(np.float64) - means) / std
    log_prob = -0.5 * float(z.dot(z)) - float(log_std.sum()) - 0.5 * len(z) * _LOG_TWO_PI
    if squash:
        log_prob -= float(log_one_minus_tanh_squared(raw.astype(np.float64)).sum())
    return raw, log_prob


def _normals(count: int, uniform: _Uniform) -> NDArray[np.float64]:
    """Standard normal numbers float64 [count]."""
    drawn: list[float] = []
    while len(drawn) < count:
        radius = math.sqrt(-2.0 * math.log(1.0 - uniform()))
        angle = 2.0 * math.pi * uniform()
        drawn += (radius * math.cos(angle), radius * math.sin(angle))
    return np.array(drawn[:count])


def log_one_minus_tanh_squared(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(1 - tanh²) of each element, without the cancellation that the formula has far out.

    2 (log 2 - x - log(1 + exp(-2x))), Haarnoja et al. 2018, appendix C, rearranged.
    """
    found: NDArray[np.float64] = 2.0 * (math.log(2.0) - raw - np.logaddexp(0.0, -2.0 * raw))
    return found
