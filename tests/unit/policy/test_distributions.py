"""The categorical distribution: torch's numbers, exact masks, no way around them by rounding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl4sys_stream.errors import MaskError, ObservationError
from rl4sys_stream.policy.distributions import FEW_ACTIONS, Categorical

LARGEST = math.nextafter(1.0, 0.0)
SIZES = [1, 2, 4, FEW_ACTIONS, FEW_ACTIONS + 1, 300]


def random_mask(rng: np.random.Generator, n: int) -> NDArray[np.bool_]:
    """About half allowed, at least one."""
    mask = rng.random(n) < 0.5
    mask[rng.integers(n)] = True
    return mask


def torch_log_probs(
    logits: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """log_softmax over the allowed actions, in double precision."""
    x = torch.from_numpy(logits.astype(np.float64))
    if mask is not None:
        x = x.masked_fill(~torch.from_numpy(mask), -torch.inf)
    return np.asarray(torch.log_softmax(x, -1).numpy())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_log_probabilities_equal_torch(n, masked):
    """Of all actions, of the sampled one, and of the greedy one."""
    rng = np.random.default_rng(n)
    for _ in range(50):
        logits = rng.normal(0, 3, n).astype(np.float32)
        mask = random_mask(rng, n) if masked else None
        expected = torch_log_probs(logits, mask)
        got = Categorical.log_probs(logits, mask)
        allowed = np.ones(n, np.bool_) if mask is None else mask
        assert np.abs(got[allowed] - expected[allowed]).max() < 1e-5
        assert (got[~allowed] == -np.inf).all()
        action, log_prob = Categorical.sample_logits(logits, mask, rng.random())
        assert (type(action), type(log_prob)) == (int, float)
        assert abs(log_prob - expected[action]) < 1e-5
        greedy, greedy_log_prob = Categorical.greedy(logits, mask)
        assert greedy == int(expected.argmax())
        assert abs(greedy_log_prob - expected[greedy]) < 1e-5


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n", [4, FEW_ACTIONS + 8])
def test_sampling_inverts_the_cumulative_distribution(n, masked):
    """An even grid of uniforms gives each action its share, to one grid step."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1, n).astype(np.float32)
    mask = random_mask(rng, n) if masked else None
    grid = (np.arange(5000) + 0.5) / 5000
    actions = [Categorical.sample_logits(logits, mask, float(u))[0] for u in grid]
    assert actions == sorted(actions)
    shares = np.bincount(actions, minlength=n) / 5000
    assert np.abs(shares - np.exp(torch_log_probs(logits, mask))).max() < 2 / 5000


LOGITS = st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=FEW_ACTIONS + 8)


@settings(max_examples=500, deadline=None)
@given(LOGITS, st.integers(0, 1 << 40), st.floats(0, 1, exclude_max=True))
@example([0.0] * 10, 0, LARGEST)
@example([0.0] * (FEW_ACTIONS + 5), 0, LARGEST)
def test_no_uniform_number_gives_a_forbidden_or_impossible_action(values, seed, uniform):
    """At both ends of [0, 1) as well, where sums and thresholds round."""
    logits = np.array(values, np.float32)
    mask = random_mask(np.random.default_rng(seed), len(values))
    for u in (uniform, 0.0, LARGEST, 5e-324):
        for chosen in (mask, None):
            action, log_prob = Categorical.sample_logits(logits, chosen, u)
            assert chosen is None or mask[action]
            assert -math.inf < log_prob <= 0
    assert mask[Categorical.greedy(logits, mask)[0]]


@pytest.mark.parametrize("n", [5, FEW_ACTIONS + 5])
@pytest.mark.parametrize("uniform", [0.0, LARGEST, 1.0])
def test_rounding_up_to_the_total_falls_back_to_an_allowed_action(n, uniform):
    """Forbidden actions stand first and last; 1.0 is what a threshold may round to."""
    mask = np.zeros(n, np.bool_)
    mask[1:3] = True
    action, log_prob = Categorical.sample_logits(np.zeros(n, np.float32), mask, uniform)
    assert action == (1 if uniform == 0 else 2)
    assert log_prob == pytest.approx(-math.log(2))


@pytest.mark.parametrize("n", [5, FEW_ACTIONS + 5])
def test_forbidden_logits_do_not_matter_whatever_they_are(n):
    """Larger than all others, infinite or NaN."""
    mask = np.ones(n, np.bool_)
    mask[[0, 3]] = False
    clean = np.linspace(-1, 1, n).astype(np.float32)
    for bad in (1e30, np.inf, -np.inf, np.nan):
        logits = clean.copy()
        logits[[0, 3]] = bad
        for u in (0.0, 0.4, LARGEST):
            assert Categorical.sample_logits(logits, mask, u) == Categorical.sample_logits(
                clean, mask, u
            )
        assert Categorical.greedy(logits, mask) == Categorical.greedy(clean, mask)


@pytest.mark.parametrize("n", [5, FEW_ACTIONS + 5])
def test_an_allowed_action_of_probability_zero_is_possible_but_never_drawn(n):
    """A logit of minus infinity, or one that underflows."""
    for low in (-np.inf, -3e38):
        logits = np.full(n, low, np.float32)
        logits[2] = 0
        for u in (0.0, 0.5, LARGEST, 1.0):
            assert Categorical.sample_logits(logits, None, u) == (2, 0.0)


@pytest.mark.parametrize("n", [5, FEW_ACTIONS + 5])
@pytest.mark.parametrize("values", [[np.nan], [np.inf], [0, np.nan], [np.nan, np.inf], [-np.inf]])
def test_logits_that_give_no_distribution_are_refused(n, values):
    """Instead of acting on chance and calling it a decision."""
    logits = np.resize(np.array(values, np.float32), n)
    for mask in (None, np.ones(n, np.bool_)):
        with pytest.raises(ObservationError, match="not finite"):
            Categorical.sample_logits(logits, mask, 0.5)
        with pytest.raises(ObservationError, match="not finite"):
            Categorical.greedy(logits, mask)


@pytest.mark.parametrize("n", [5, FEW_ACTIONS + 5])
def test_masks_that_allow_nothing_or_have_another_shape_are_refused(n):
    """By sampling and by the greedy choice."""
    logits = np.zeros(n, np.float32)
    masks = [np.zeros(n, np.bool_), np.ones(n + 1, np.bool_), np.ones((n, 1), np.bool_)]
    for mask in (*masks, np.ones(1, np.bool_)):
        with pytest.raises(MaskError):
            Categorical.sample_logits(logits, mask, 0.5)
        with pytest.raises(MaskError):
            Categorical.greedy(logits, mask)


def test_the_first_of_equal_logits_is_greedy():
    """Ties are broken the same way everywhere."""
    logits = np.array([0, 1, 1, 1], np.float32)
    assert Categorical.greedy(logits, None)[0] == 1
    assert Categorical.greedy(logits, np.array([True, False, True, True]))[0] == 2
