"""V-trace: values and advantages of the learner's policy from steps that another policy chose.

Espeholt, Soyer, Munos et al.: IMPALA: Scalable Distributed Deep-RL with Importance Weighted
Actor-Learner Architectures, ICML 2018 (arXiv:1802.01561), equation 1 and remark 2.

Steps of a lagging policy answer another question than the learner's: what follows an action that it
would not choose, and for how long. Each step's ratio of the two probabilities says how far: ρ, cut
at ρ̄, weighs its error, and c, cut at c̄, how much of what comes later is believed.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["VTrace", "vtrace"]


@dataclass(frozen=True, slots=True, eq=False)
class VTrace:
    """What one trajectory's T steps teach.

    Attributes:
        advantages: float32 [T], not yet weighed by how probable the learner finds the step.
        returns: float32 [T], v_t, which the critic learns.
    """

    advantages: NDArray[np.float32]
    returns: NDArray[np.float32]


def vtrace(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    bootstrap: float,
    log_ratios: NDArray[np.float32],
    *,
    gamma: float,
    gae_lambda: float,
    rho_bar: float,
    c_bar: float,
) -> VTrace:
    """Targets of one trajectory, summed in float64.

    With δ_t = r_t + γ V(s_{t+1}) - V(s_t), V(s_T) = `bootstrap` and v_T = V(s_T):

        v_t = V(s_t) + ρ_t δ_t + γ c_t (v_{t+1} - V(s_{t+1})),    c_t = λ min(c̄, ratio)
        A_t = δ_t + γ λ (v_{t+1} - V(s_{t+1}))

    The paper's advantage has no λ. With it, ratios of 1 and bounds of at least 1 make A_t that of
    `gae`, so that nothing changes where nothing lags.

    Args:
        rewards: float32 [T], r_t.
        values: float32 [T], V(s_t).
        bootstrap: V(s_T), see `gae.bootstrap_value`.
        log_ratios: float32 [T], log-probability of each action under the learner's policy less that
            under the policy that chose it.
        gamma: Discount.
        gae_lambda: λ.
        rho_bar: ρ̄, at least `c_bar`; it decides which policy the values are of: the learner's if
            large, between the two policies otherwise.
        c_bar: c̄; it decides how fast they are learned, and how noisily.
    """
    decay = gamma * gae_lambda
    next_value, later = bootstrap, 0.0  # later: v_{t+1} - V(s_{t+1})
    log_rho_bar, log_c_bar = math.log(rho_bar), math.log(c_bar)
    advantages: list[float] = []
    corrections: list[float] = []
    for reward, value, log_ratio in zip(
        rewards[::-1].tolist(), values[::-1].tolist(), log_ratios[::-1].tolist(), strict=True
    ):
        rho = math.exp(min(log_rho_bar, log_ratio))  # cut first: what is absurd does not overflow
        error = reward + gamma * next_value - value
        advantages.append(error + decay * later)
        later = rho * error + decay * math.exp(min(log_c_bar, log_ratio)) * later
        next_value = value
        corrections.append(later)
    # What is too large for float32 becomes infinite, which the update refuses by name.
    with np.errstate(over="ignore"):
        return VTrace(
            advantages=np.array(advantages[::-1], np.float32),
            returns=np.array(corrections[::-1], np.float32) + values,
        )
