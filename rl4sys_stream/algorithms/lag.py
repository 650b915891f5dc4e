"""How far behind the learner the policies were that acted."""

from collections.abc import Sequence

import numpy as np

from rl4sys_stream.algorithms.base import Sample

__all__ = ["describe_lag"]


def describe_lag(samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics of the policy lag's distribution over steps; quantiles are lags that occurred."""
    steps = [len(sample.trajectory.actions) for sample in samples]
    lags = np.repeat([sample.lag for sample in samples], steps)
    median, ninth_decile = np.quantile(lags, (0.5, 0.9), method="inverted_cdf")
    return {
        "policy/lag_mean": float(lags.mean()),
        "policy/lag_p50": float(median),
        "policy/lag_p90": float(ninth_decile),
        "policy/lag_max": float(lags.max()),
    }
