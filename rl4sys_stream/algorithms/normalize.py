"""Running statistics of observations and returns, and what is normalised by them.

Chan, Golub, LeVeque 1979: Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances, equation 2.1. Statistics are float64; what acts on observations is float32, the same
numbers in the learner and in the agents. Rewards are scaled in the learner alone.
"""

import math
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import NonFiniteError
from rl4sys_stream.policy.extras import ObservationNormalization

__all__ = ["EPSILON", "RunningMeanStd", "discounted_returns", "normalize", "scale_rewards"]

ADOPTED_COUNT: Final = 10_000
"""Rows that an adopted normalisation counts for: more than a rollout, fewer than a training."""
EPSILON: Final = 1e-8
"""Added to the variance, so that a constant element gets a finite scale."""


class RunningMeanStd:
    """Mean and population variance of all rows seen so far.

    Before any row the mean is 0 and the variance 1, so normalising changes nothing.

    Attributes:
        mean: float64 [dim].
        variance: float64 [dim].
        count: Rows seen.
    """

    def __init__(self, dim: int) -> None:
        self.mean: NDArray[np.float64] = np.zeros(dim)
        self.variance: NDArray[np.float64] = np.ones(dim)
        self.count = 0

    def update(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> None:
        """Take in `rows`, [N, dim], N >= 1.

        Raises:
            NonFiniteError: If one is not finite; nothing was changed.
        """
        batch = rows.astype(np.float64)
        batch_mean, batch_variance = batch.mean(axis=0), batch.var(axis=0)
        if not np.isfinite(batch_mean).all():
            raise NonFiniteError(
                "an observation or a reward is not finite; its statistics were left as before"
            )
        total = self.count + len(batch)
        delta = batch_mean - self.mean
        squares = self.variance * self.count + batch_variance * len(batch)
        squares += delta**2 * (self.count * len(batch) / total)
        self.mean = self.mean + delta * (len(batch) / total)
        self.variance = squares / total
        self.count = total

    def adopt(self, normalization: ObservationNormalization) -> None:
        """Go on from what was published; how many rows that was made of is not known."""
        self.mean = normalization.mean.astype(np.float64)
        scale = normalization.scale.astype(np.float64)
        self.variance = np.maximum(1.0 / np.square(scale) - EPSILON, 0.0)
        self.count = ADOPTED_COUNT

    def normalization(self, clip: float) -> ObservationNormalization:
        """What agents apply: `mean` and `scale` = 1/√(variance + ε), rounded to float32."""
        return ObservationNormalization(
            mean=self.mean.astype(np.float32),
            scale=(1.0 / np.sqrt(self.variance + EPSILON)).astype(np.float32),
            clip=clip,
        )


def normalize(
    observations: NDArray[np.float32], normalization: ObservationNormalization
) -> NDArray[np.float32]:
    """`observations`, float32 [N, obs_dim], shifted, scaled and clipped as the agents do it.

    Statistics of items, float32 [f], hold for each of those that an observation consists of.
    """
    rows = observations.reshape(-1, len(normalization.mean))
    scaled = (rows - normalization.mean) * normalization.scale
    clipped: NDArray[np.float32] = scaled.clip(-normalization.clip, normalization.clip)
    return clipped.reshape(observations.shape)


def discounted_returns(rewards: NDArray[np.float32], gamma: float) -> NDArray[np.float64]:
    """The running return R_t = γ R_{t-1} + r_t of one trajectory, float64 [T], from R_{-1} = 0.

    Stable-Baselines3's `VecNormalize` sums so from the beginning of each episode. Here it is from
    that of each trajectory: of a long episode the parts may come from anywhere and in any order,
    and after 1/(1 - γ) steps a return has forgotten what it began with.

    Args:
        rewards: float32 [T], as the application gave them.
        gamma: Discount.
    """
    sums = accumulate(rewards.tolist(), lambda before, reward: gamma * before + reward)
    return np.fromiter(sums, np.float64, len(rewards))


def scale_rewards(
    rewards: NDArray[np.float32], returns: RunningMeanStd, clip: float
) -> NDArray[np.float32]:
    """`rewards`, float32 [T], in deviations of the return, not shifted, within ±`clip`."""
    scale = 1.0 / math.sqrt(float(returns.variance[0]) + EPSILON)
    return (rewards.astype(np.float64) * scale).clip(-clip, clip).astype(np.float32)
