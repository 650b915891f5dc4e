"""The distribution of the policy lag."""

import numpy as np

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.lag import describe_lag
from tests.unit.algorithms.samples import random_trajectory


def test_steps_count_and_quantiles_are_lags_that_occurred() -> None:
    """Five steps of lag 0 and five of lag 10: the median is one of the two, not 5."""
    rng = np.random.default_rng(0)
    samples = [Sample(random_trajectory(rng, steps), lag) for steps, lag in ((5, 0), (4, 10))]
    samples.append(Sample(random_trajectory(rng, 1), 10))
    assert describe_lag(samples) == {
        "policy/lag_mean": 5.0,
        "policy/lag_p50": 0.0,
        "policy/lag_p90": 10.0,
        "policy/lag_max": 10.0,
    }
