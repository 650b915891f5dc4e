"""Returns over several steps: what the next k rewards are worth, before any bootstrap.

Watkins 1989, Learning from Delayed Rewards, §7.2; for deep Q-networks Hessel et al. 2018, Rainbow
(arXiv:1710.02298), §3 "Multi-step learning".
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["n_step_returns"]


def n_step_returns(
    rewards: NDArray[np.float32], n_step: int, gamma: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The discounted sum of the next `n_step` rewards at each step of one trajectory.

    Near the end there are fewer: the sum never reaches beyond the trajectory.

    Args:
        rewards: float32 [T].
        n_step: Most rewards to add up, at least 1.
        gamma: Discount.

    Returns:
        The sums, float32 [T], and how many rewards each has, int64 [T]. Summed as float64.
    """
    steps = len(rewards)
    counts = np.minimum(n_step, np.arange(steps, 0, -1))
    if n_step == 1:
        return rewards, counts
    sums = np.zeros(steps)
    for ahead in range(min(n_step, steps)):
        sums[: steps - ahead] += gamma**ahead * rewards[ahead:]
    with np.errstate(over="ignore"):  # an absurd reward is found by its loss, and named there
        return sums.astype(np.float32), counts
