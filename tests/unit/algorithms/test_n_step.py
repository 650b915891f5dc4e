"""Returns over several steps, against sums written out one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.algorithms.n_step import n_step_returns
from tests.unit.algorithms.samples import f32


def test_three_steps_worked_out_by_hand() -> None:
    """Near the end there are fewer rewards to add, and the count says so."""
    returns, counts = n_step_returns(f32([1.0, 2.0, 4.0, 8.0]), 3, 0.5)
    assert returns.tolist() == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8]
    assert counts.tolist() == [3, 3, 2, 1]


def test_one_step_is_the_reward_itself() -> None:
    """Bit for bit, whatever the discount."""
    rewards = f32([0.1, -0.7, 1e30])
    returns, counts = n_step_returns(rewards, 1, 0.9)
    assert returns.tobytes() == rewards.tobytes()
    assert counts.tolist() == [1, 1, 1]


@given(
    rewards=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    n_step=st.integers(1, 25),
    gamma=st.floats(0, 1),
)
def test_they_equal_sums_that_look_at_one_reward_after_the_other(
    rewards: list[float], n_step: int, gamma: float
) -> None:
    """For any length, also of trajectories shorter than the number of steps."""
    returns, counts = n_step_returns(f32(rewards), n_step, gamma)
    for step in range(len(rewards)):
        total, weight, used = 0.0, 1.0, 0
        while used < n_step and step + used < len(rewards):
            total += weight * float(f32(rewards[step + used]))
            weight *= gamma
            used += 1
        assert returns[step] == pytest.approx(total, rel=1e-5, abs=1e-4)
        assert counts[step] == used


def test_sums_beyond_float32_are_infinite_without_a_warning() -> None:
    """The learner finds them by its loss, and rolls back."""
    returns, _ = n_step_returns(f32([3e38, 3e38]), 2, 1.0)
    assert np.isinf(returns[0])
