"""The distance between two policies: closed forms, and draws where they are easier to believe."""

import math

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.policy.distance import policy_distance
from rl4sys_stream.policy.heads import MAX_LOG_STD
from rl4sys_stream.spaces import Box, Discrete, MultiDiscrete
from rl4sys_stream.spaces.actions import ActionFormat

CHOICES = ActionFormat.of(Discrete(3))
REALS = ActionFormat.of(Box((2,)))


def rows(*values: ArrayLike) -> NDArray[np.float32]:
    """Outputs of a network."""
    return np.array(values, np.float32)


@pytest.mark.parametrize("head", ["categorical", "epsilon_greedy"])
def test_a_policy_has_no_distance_from_itself(head):
    """Not even where its values are all the same."""
    for outputs in (rows([1.0, 2.0, 3.0]), rows([0.0, 0.0, 0.0])):
        assert policy_distance(CHOICES, head, outputs, outputs) == 0.0


def test_choices_diverge_by_their_definition():
    """Mean over observations of Σ p ln(p / q); a constant added to logits changes nothing."""
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.2, 0.3, 0.5])
    expected = float((p * np.log(p / q)).sum())
    outputs, others = rows(np.log(p), np.log(p)), rows(np.log(q) + 7.0, np.log(p))
    found = policy_distance(CHOICES, "categorical", outputs, others)
    assert found == pytest.approx(expected / 2, rel=1e-5)


def test_what_is_forbidden_does_not_count():
    """However wrong its logit is, and however large."""
    outputs, others = rows([0.0, math.log(3.0), 80.0]), rows([0.0, 0.0, -80.0])
    mask = np.array([[True, True, False]])
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    found = policy_distance(CHOICES, "categorical", outputs, others, mask)
    assert found == pytest.approx(expected, rel=1e-5)


def test_several_choices_diverge_by_the_sum_of_theirs():
    """They are independent."""
    rng = np.random.default_rng(0)
    outputs, others = rng.normal(size=(2, 40, 5)).astype(np.float32)
    both = policy_distance(ActionFormat.of(MultiDiscrete((2, 3))), "categorical", outputs, others)
    two = ActionFormat.of(Discrete(2))
    apart = policy_distance(two, "categorical", outputs[:, :2], others[:, :2])
    apart += policy_distance(CHOICES, "categorical", outputs[:, 2:], others[:, 2:])
    assert both == pytest.approx(apart, rel=1e-6)


@pytest.mark.parametrize("head", ["gaussian", "state_gaussian"])
def test_normal_distributions_diverge_as_draws_from_them_say(head):
    """The closed form against a mean of log-ratios."""
    outputs, others = rows([0.3, -0.2, -0.5, 0.1]), rows([0.1, 0.1, -0.3, 0.0])
    mean, std = outputs[0, :2], np.exp(outputs[0, 2:])
    draws = mean + std * np.random.default_rng(1).standard_normal((400_000, 2))

    def log_density(row: NDArray[np.float32]) -> NDArray[np.float64]:
        z = (draws - row[:2]) / np.exp(row[2:])
        found: NDArray[np.float64] = (-0.5 * z**2 - row[2:]).sum(axis=1)
        return found

    expected = float((log_density(outputs[0]) - log_density(others[0])).mean())
    found = policy_distance(REALS, head, outputs, others)
    assert found == pytest.approx(expected, rel=0.02)


def test_deviations_count_as_agents_cut_them():
    """Those that depend on the state are cut; the model's own are not."""
    outputs, others = rows([0.0, 0.0, 5.0, 0.0]), rows([0.0, 0.0, MAX_LOG_STD, 0.0])
    assert policy_distance(REALS, "state_gaussian", outputs, others) == 0.0
    assert policy_distance(REALS, "gaussian", outputs, others) > 1.0


def test_action_values_differ_by_their_error_relative_to_their_variance():
    """So that the scale of rewards does not matter."""
    outputs = rows([0.0, 2.0, 4.0], [6.0, 8.0, 10.0])
    others = outputs + np.float32(0.5)
    expected = 0.25 / float(outputs.var())
    for scale in (1.0, 1000.0):
        found = policy_distance(
            CHOICES, "epsilon_greedy", outputs * np.float32(scale), others * np.float32(scale)
        )
        assert found == pytest.approx(expected, rel=1e-5)


def test_what_is_not_finite_is_infinitely_far_away():
    """A budget never allows it; and no warning reaches anybody."""
    outputs, broken = rows([0.0, 1.0, 2.0]), rows([0.0, np.inf, np.nan])
    with np.errstate(all="raise"):
        assert policy_distance(CHOICES, "categorical", outputs, broken) == math.inf
        assert policy_distance(CHOICES, "epsilon_greedy", outputs, broken) == math.inf
        flat = rows([1.0, 1.0, 1.0])
        assert policy_distance(CHOICES, "epsilon_greedy", flat, outputs) == math.inf
