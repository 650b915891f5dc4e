"""Generalised advantage estimation, one trajectory at a time.

Schulman, Moritz, Levine, Jordan, Abbeel: High-Dimensional Continuous Control Using Generalized
Advantage Estimation, ICLR 2016 (arXiv:1506.02438), equations 11 to 16.

A trajectory's end says what follows it. `terminated`: nothing, so its value is 0. `truncated` (a
time limit) and `cut` (the episode goes on in the next trajectory): something, so the critic's
value of the final observation stands for it (Pardo et al. 2018, Time Limits in Reinforcement
Learning, arXiv:1712.00378). No sum ever crosses from one trajectory into another.
"""

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import UsageError
from rl4sys_stream.wire.trajectory import End

__all__ = ["bootstrap_value", "gae"]


def bootstrap_value(end: End, final_value: float | None) -> float:
    """V(s_T), the value of what comes after the last step of a trajectory.

    Args:
        end: How the trajectory ended.
        final_value: The critic's value of the final observation; None only if terminated.

    Raises:
        UsageError: If the trajectory goes on after its last step, but no value is given.
    """
    if end is End.TERMINATED:
        return 0.0
    if final_value is None:
        raise UsageError(f"a {end} trajectory needs its final observation to bootstrap from")
    return final_value


def gae(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    bootstrap: float,
    *,
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Advantages of one trajectory; adding `values` gives the λ-returns the critic learns.

    δ_t = r_t + γ V(s_{t+1}) - V(s_t) and A_t = δ_t + γλ A_{t+1}, with V(s_T) = `bootstrap` and
    A_T = 0 (equations 12 and 16).

    Args:
        rewards: float32 [T], r_t.
        values: float32 [T], V(s_t).
        bootstrap: V(s_T), see `bootstrap_value`.
        gamma: Discount.
        gae_lambda: λ; 0 gives one-step errors, 1 the Monte-Carlo return less the baseline.

    Returns:
        float32 [T], summed in float64.
    """
    # Python floats: three times as fast as indexing arrays, and they are float64.
    decay = gamma * gae_lambda
    next_value, advantage = bootstrap, 0.0
    backwards: list[float] = []
    for reward, value in zip(rewards[::-1].tolist(), values[::-1].tolist(), strict=True):
        advantage = reward + gamma * next_value - value + decay * advantage
        next_value = value
        backwards.append(advantage)
    # What is too large for float32 becomes infinite, which the update refuses by name.
    with np.errstate(over="ignore"):
        return np.array(backwards[::-1], dtype=np.float32)
