"""Running mean and variance of the observations, and the normalisation that is published.

Chan, Golub, LeVeque 1979: Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances, equation 2.1. Statistics are float64; what acts on observations is float32, the same
numbers in the learner and in the agents.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import NonFiniteError
from rl4sys_stream.policy.extras import ObservationNormalization

__all__ = ["EPSILON", "RunningMeanStd", "normalize"]

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

    def update(self, rows: NDArray[np.float32]) -> None:
        """Take in `rows`, float32 [N, dim], N >= 1.

        Raises:
            NonFiniteError: If one is not finite; nothing was changed.
        """
        batch = rows.astype(np.float64)
        batch_mean, batch_variance = batch.mean(axis=0), batch.var(axis=0)
        if not np.isfinite(batch_mean).all():
            raise NonFiniteError("an observation is not finite; its statistics were left as before")
        total = self.count + len(batch)
        delta = batch_mean - self.mean
        squares = self.variance * self.count + batch_variance * len(batch)
        squares += delta**2 * (self.count * len(batch) / total)
        self.mean = self.mean + delta * (len(batch) / total)
        self.variance = squares / total
        self.count = total

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
    """`observations`, float32 [N, obs_dim], shifted, scaled and clipped as the agents do it."""
    scaled = (observations - normalization.mean) * normalization.scale
    clipped: NDArray[np.float32] = scaled.clip(-normalization.clip, normalization.clip)
    return clipped
