"""Running statistics, and that learner and agent normalise alike."""

import numpy as np
import pytest

from rl4sys_stream.algorithms.normalize import (
    RunningMeanStd,
    discounted_returns,
    normalize,
    scale_rewards,
)
from rl4sys_stream.errors import NonFiniteError
from tests.unit.algorithms.samples import f32


def test_batches_of_any_size_add_up_to_the_statistics_of_all_rows() -> None:
    """Merged moments equal those of the concatenation, also far from zero."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((500, 3)) * [1e-3, 1.0, 1e3] + [1e3, 0.0, -5.0]).astype(np.float32)
    statistics = RunningMeanStd(3)
    for part in np.split(rows, [1, 2, 50, 499]):
        statistics.update(part)
    assert statistics.count == 500
    np.testing.assert_allclose(statistics.mean, rows.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.variance, rows.astype(float).var(axis=0), rtol=1e-7)


def test_nothing_changes_before_the_first_row() -> None:
    """The first policy acts on observations as they are."""
    normalization = RunningMeanStd(2).normalization(10.0)
    rows = f32([[1.5, -3.0]])
    np.testing.assert_allclose(normalize(rows, normalization), rows, rtol=1e-6)


def test_normalised_rows_have_mean_zero_and_deviation_one() -> None:
    """The purpose of it."""
    rows = (np.random.default_rng(1).standard_normal((4000, 2)) * 7 + 3).astype(np.float32)
    statistics = RunningMeanStd(2)
    statistics.update(rows)
    normalised = normalize(rows, statistics.normalization(10.0))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalised.std(axis=0), 1.0, rtol=1e-4)


def test_outliers_are_clipped() -> None:
    """One absurd reading cannot saturate the network."""
    statistics = RunningMeanStd(1)
    statistics.update(f32([[-1.0], [1.0]]))
    assert normalize(f32([[1e6], [-1e6]]), statistics.normalization(5.0)).tolist() == [
        [5.0],
        [-5.0],
    ]


def test_a_constant_element_becomes_zero_and_stays_finite() -> None:
    """Its variance is 0, which must not be divided by."""
    statistics = RunningMeanStd(1)
    statistics.update(np.full((10, 1), 4.0, np.float32))
    assert normalize(f32([[4.0]]), statistics.normalization(10.0)).tolist() == [[0.0]]


def test_a_row_that_is_not_finite_changes_nothing() -> None:
    """Statistics are cumulative: one NaN would stay for ever."""
    statistics = RunningMeanStd(1)
    statistics.update(f32([[1.0], [2.0]]))
    with pytest.raises(NonFiniteError):
        statistics.update(f32([[np.nan]]))
    assert (statistics.count, statistics.mean.tolist()) == (2, [1.5])


def test_a_running_return_forgets_by_the_discount() -> None:
    """R_t = γ R_{t-1} + r_t, from 0."""
    assert discounted_returns(f32([1, 2, -4]), 0.5).tolist() == [1.0, 2.5, -2.75]


def test_rewards_are_counted_in_deviations_of_the_return_and_not_shifted() -> None:
    """Returns of -4 and 8 deviate by 6 from their mean 2; a reward of 12 is 2 of these."""
    returns = RunningMeanStd(1)
    returns.update(np.array([[-4.0], [8.0]]))
    assert scale_rewards(f32([12, 0, -3]), returns, 10.0) == pytest.approx([2.0, 0.0, -0.5])
    assert scale_rewards(f32([12, 0, -3e38]), returns, 1.5) == pytest.approx([1.5, 0.0, -1.5])


def test_rewards_are_as_they_were_before_the_first_return() -> None:
    """As observations are."""
    assert scale_rewards(f32([2.0]), RunningMeanStd(1), 10.0) == pytest.approx([2.0])
