"""Heads: torch's densities, frequencies as the probabilities promise them, hostile numbers."""

import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.distributions import (
    Categorical,
    Distribution,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from rl4sys_stream.errors import MaskError, ObservationError
from rl4sys_stream.policy.heads import (
    LOG_STD_LIMIT,
    MAX_LOG_STD,
    MIN_LOG_STD,
    CategoricalHead,
    EpsilonGreedyHead,
    FactorsHead,
    GaussianHead,
    Head,
    StateGaussianHead,
    log_one_minus_tanh_squared,
)
from rl4sys_stream.spaces.actions import RawAction

F = np.float32
LARGEST = math.nextafter(1.0, 0.0)
LARGEST_FLOAT32 = float(np.finfo(F).max)


def numbers(*values: float) -> Callable[[], float]:
    """A source of exactly these uniform numbers."""
    return iter(values).__next__


def logits(n: int, seed: int = 0) -> NDArray[np.float32]:
    """`n` ordinary outputs."""
    return np.random.default_rng(seed).normal(0, 1, n).astype(F)


def log_density(
    raw: RawAction, means: Iterable[float], log_std: Iterable[float], *, squash: bool
) -> float:
    """Torch's, in double precision."""
    centres = torch.tensor(list(means), dtype=torch.float64)
    deviations = torch.tensor(list(log_std), dtype=torch.float64).exp()
    distribution: Distribution = Normal(centres, deviations)
    value = torch.tensor(np.asarray(raw), dtype=torch.float64)
    if squash:
        # The cache gives the raw action back, where tanh has rounded to 1.
        transform = TanhTransform(cache_size=1)
        distribution = TransformedDistribution(distribution, [transform])
        value = transform(value)
    return float(log_prob_of(distribution, value).sum())


def log_prob_of(distribution: Distribution, value: torch.Tensor) -> torch.Tensor:
    """Of each element."""
    found: torch.Tensor = distribution.log_prob(value)
    return found


def heads(dim: int, *, squash: bool) -> list[tuple[Head, NDArray[np.float32], NDArray[np.float32]]]:
    """Both Gaussian heads with outputs of one and the same distribution; its log_std."""
    log_std = np.linspace(-1.5, 0.5, dim).astype(F)
    means = logits(dim, seed=dim)
    fixed = GaussianHead(tuple(log_std.tolist()), squash)
    return [
        (fixed, means, log_std),
        (StateGaussianHead(squash), np.concatenate([means, log_std]), log_std),
    ]


# -- integers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_the_log_probability_of_several_choices_is_the_sum_of_torchs(masked):
    """Each choice over its own logits, and its own part of the mask."""
    rng, head = np.random.default_rng(1), FactorsHead((3, 1, 40, 2))
    for _ in range(50):
        outputs = rng.normal(0, 2, 46).astype(F)
        mask = rng.random(46) < 0.5
        mask[[0, 3, 4, 44]] = True
        given_mask = mask if masked else None
        hidden = torch.from_numpy(~mask if masked else np.zeros(46, np.bool_))
        unmasked = torch.from_numpy(outputs).masked_fill(hidden, -torch.inf)
        parts = torch.split(unmasked, [3, 1, 40, 2])
        for action, log_prob in (
            head.sample(outputs, given_mask, rng.random),
            head.greedy(outputs, given_mask),
        ):
            expected = sum(
                log_prob_of(Categorical(logits=part), torch.tensor(choice)).item()
                for part, choice in zip(parts, action.tolist(), strict=True)
            )
            assert action.dtype == np.int64
            assert action.shape == (4,)
            assert log_prob == pytest.approx(expected, abs=1e-5)
        assert action.tolist() == [int(part.argmax()) for part in parts]


def test_each_choice_is_drawn_by_a_number_of_its_own_in_order():
    """Other languages draw the same actions from the same numbers."""
    head, outputs = FactorsHead((2, 4, 2)), np.zeros(8, F)
    action, _ = head.sample(outputs, None, numbers(0.9, 0.3, 0.1))
    assert action.tolist() == [1, 1, 0]
    lone = CategoricalHead()
    assert lone.sample(np.zeros(4, F), None, numbers(0.3))[0] == 1


def test_choices_come_as_often_as_their_probabilities_say_and_independently():
    """All pairs of two choices, against the product."""
    head, outputs = FactorsHead((2, 3)), logits(5)
    draw = random.Random(3).random
    counts = np.zeros((2, 3))
    for _ in range(20_000):
        action, _ = head.sample(outputs, None, draw)
        counts[tuple(action)] += 1
    first, second = (np.exp(part) / np.exp(part).sum() for part in (outputs[:2], outputs[2:]))
    assert np.abs(counts / 20_000 - np.outer(first, second)).max() < 0.01


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.array([True, True, False, False, False]), "forbids every action"),
        (np.ones(4, np.bool_), "shape"),
        (np.ones(6, np.bool_), "shape"),
        (np.ones((5, 1), np.bool_), "shape"),
        (np.ones((2, 5), np.bool_), "shape"),
    ],
)
def test_a_mask_must_leave_something_to_each_choice(mask, words):
    """A mask of the wrong length must not be shared out among the choices."""
    head = FactorsHead((2, 3))
    with pytest.raises(MaskError, match=words):
        head.sample(logits(5), mask, random.Random(0).random)
    with pytest.raises(MaskError, match=words):
        head.greedy(logits(5), mask)


def test_one_bad_logit_of_several_choices_is_refused():
    """Also if it belongs to the last one."""
    outputs = logits(5)
    outputs[4] = np.nan
    with pytest.raises(ObservationError, match="not finite"):
        FactorsHead((2, 3)).sample(outputs, None, random.Random(0).random)


# -- epsilon-greedy -----------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_an_epsilon_greedy_policy_tells_the_truth_about_itself(epsilon, masked):
    """What it says of each action is how often the action comes, and adds up to 1."""
    values = np.array([5.0, 1.0, 3.0, -2.0], F)
    mask = np.array([False, True, True, True]) if masked else None
    head, draw = EpsilonGreedyHead(epsilon), random.Random(4).random
    said: dict[int, float] = {}
    counts = np.zeros(4)
    for _ in range(20_000):
        action, log_prob = head.sample(values, mask, draw)
        counts[action] += 1
        assert said.setdefault(action, log_prob) == log_prob
    best, allowed = (2, 3) if masked else (0, 4)
    assert said[best] == pytest.approx(math.log(1 - epsilon + epsilon / allowed), abs=1e-12)
    assert sum(map(math.exp, said.values())) == pytest.approx(1.0)
    for action, log_prob in said.items():
        assert counts[action] / 20_000 == pytest.approx(math.exp(log_prob), abs=0.012)
    assert head.greedy(values, mask) == (best, said[best])


def test_an_epsilon_of_zero_never_explores_and_one_of_one_always_does():
    """At both ends of the numbers that are drawn."""
    values = np.array([0.0, 1.0], F)
    for draw in (0.0, LARGEST):
        assert EpsilonGreedyHead(0.0).sample(values, None, numbers(draw)) == (1, 0.0)
        action, log_prob = EpsilonGreedyHead(1.0).sample(values, None, numbers(draw, 0.0))
        assert (action, log_prob) == (0, -math.log(2))


@pytest.mark.parametrize("epsilon", [5e-324, 1e-300, 1e-17, 0.1, 0.3, 0.7, LARGEST, 1.0])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_epsilon_gives_finite_log_probabilities_of_at_most_zero(epsilon, count):
    """The smallest share of all rounds to 0 when it is divided."""
    values = np.zeros(count, F)
    for second in (0.0, 0.5, LARGEST):
        action, log_prob = EpsilonGreedyHead(epsilon).sample(values, None, numbers(0.0, second))
        assert 0 <= action < count
        assert -math.inf < log_prob <= 0


def test_the_only_allowed_action_is_certain():
    """Whatever is drawn, and whatever the others are worth."""
    values = np.array([np.nan, 1.0, np.inf], F)
    mask = np.array([False, True, False])
    for draw in itertools.product((0.0, LARGEST), repeat=2):
        action, log_prob = EpsilonGreedyHead(0.5).sample(values, mask, numbers(*draw))
        assert (action, log_prob) == (1, 0.0)


def test_the_first_of_equal_action_values_is_taken():
    """As the learner's own argmax does."""
    values = np.array([0.0, 2.0, 2.0], F)
    assert EpsilonGreedyHead(0.0).greedy(values, None)[0] == 1
    assert EpsilonGreedyHead(0.0).greedy(values, np.array([True, False, True]))[0] == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_action_values_that_are_not_finite_are_refused(bad, place):
    """Wherever they stand: comparisons with NaN depend on the order."""
    values = np.array([0.0, 1.0, 2.0], F)
    values[place] = bad
    head = EpsilonGreedyHead(0.1)
    with pytest.raises(ObservationError, match="not finite"):
        head.greedy(values, None)
    with pytest.raises(ObservationError, match="not finite"):
        head.sample(values, None, numbers(0.9))


@pytest.mark.parametrize("mask", [np.zeros(3, np.bool_), np.ones(4, np.bool_)])
def test_an_epsilon_greedy_policy_refuses_masks_that_cannot_be_meant(mask):
    """Nothing allowed, or another length."""
    with pytest.raises(MaskError):
        EpsilonGreedyHead(0.1).sample(np.zeros(3, F), mask, random.Random(0).random)


# -- real vectors -------------------------------------------------------------------------------


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3, 17])
def test_log_densities_equal_torch(dim, squash):
    """Of the raw action as it is recorded, rounded to float32; drawn and greedy."""
    draw = random.Random(dim).random
    for head, outputs, log_std in heads(dim, squash=squash):
        means = outputs[:dim].tolist()
        for _ in range(50):
            raw, log_prob = head.sample(outputs, None, draw)
            assert isinstance(raw, np.ndarray)
            assert raw.dtype == np.float32
            assert raw.shape == (dim,)
            assert type(log_prob) is float
            expected = log_density(raw, means, log_std.tolist(), squash=squash)
            assert log_prob == pytest.approx(expected, abs=1e-5)
        raw, log_prob = head.greedy(outputs, None)
        assert raw == pytest.approx(means)
        assert log_prob == pytest.approx(
            log_density(outputs[:dim], means, log_std.tolist(), squash=squash), abs=1e-5
        )


def test_the_two_gaussian_heads_agree():
    """One distribution, one way to draw from it."""
    fixed, state = heads(3, squash=True)
    one = fixed[0].sample(fixed[1], None, random.Random(1).random)
    other = state[0].sample(state[1], None, random.Random(1).random)
    assert np.array_equal(one[0], other[0])
    assert one[1] == other[1]


def test_real_vectors_have_the_moments_of_their_distribution():
    """Mean, deviation, no correlation between elements that share two numbers, and the tails."""
    head = GaussianHead((-1.0, 0.0, 0.5), squash=False)
    means, draw = np.array([2.0, -1.0, 0.0], F), random.Random(5).random
    drawn = np.array([head.sample(means, None, draw)[0] for _ in range(20_000)], np.float64)
    z = (drawn - means) / np.exp([-1.0, 0.0, 0.5])
    assert np.abs(z.mean(axis=0)).max() < 0.025
    assert np.abs(z.std(axis=0) - 1).max() < 0.02
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 0.025
    for beyond, share in ((1.0, 0.15866), (2.0, 0.02275)):
        assert np.abs((z > beyond).mean(axis=0) - share).max() < 0.006
        assert np.abs((z < -beyond).mean(axis=0) - share).max() < 0.006


def test_real_vectors_are_drawn_by_box_and_muller_two_elements_from_two_numbers():
    """The formula in full, for other languages; an odd last element takes two as well."""
    head, means = GaussianHead((0.0,) * 3, squash=False), np.zeros(3, F)
    raw, _ = head.sample(means, None, numbers(0.3, 0.6, 0.8, 0.2))
    radii = [math.sqrt(-2 * math.log(1 - u)) for u in (0.3, 0.8)]
    angles = [2 * math.pi * u for u in (0.6, 0.2)]
    expected = [
        radii[0] * math.cos(angles[0]),
        radii[0] * math.sin(angles[0]),
        radii[1] * math.cos(angles[1]),
    ]
    assert raw == pytest.approx(expected)


@pytest.mark.parametrize("squash", [False, True])
def test_both_ends_of_the_uniform_numbers_give_finite_actions(squash):
    """0 would have no logarithm the other way round."""
    for draw in itertools.product((0.0, 5e-324, 0.5, LARGEST), repeat=2):
        for head, outputs, _ in heads(2, squash=squash):
            raw, log_prob = head.sample(outputs, None, numbers(*draw))
            assert np.isfinite(raw).all()
            assert math.isfinite(log_prob)
    raw, _ = GaussianHead((0.0,), squash).sample(np.ones(1, F), None, numbers(0.0, 0.0))
    assert raw.tolist() == [1.0]


def test_deviations_that_depend_on_the_state_are_cut_off():
    """At -20 and 2, as by torch's clamp, whatever the network says."""
    head = StateGaussianHead(squash=False)
    for said, used in (
        (-1e30, MIN_LOG_STD),
        (-21.0, -20.0),
        (-np.inf, -20.0),
        (3.0, 2.0),
        (np.inf, MAX_LOG_STD),
    ):
        _, log_prob = head.greedy(np.array([0.0, said], F), None)
        assert log_prob == pytest.approx(-used - 0.5 * math.log(2 * math.pi))


def test_squashed_densities_are_right_where_tanh_has_rounded_to_one():
    """Torch agrees with its cache; without it, it would be at infinity."""
    for centre in (-40.0, -20.0, -9.0, 9.0, 20.0, 40.0, 80.0):
        head, means = GaussianHead((-1.0,), squash=True), np.array([centre], F)
        raw, log_prob = head.sample(means, None, numbers(0.5, 0.1))
        assert log_prob == pytest.approx(
            log_density(raw, [centre], [-1.0], squash=True), rel=1e-6, abs=1e-5
        )


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=4))
@example([0.0, -0.0, 1e-300, 30.0])
def test_the_correction_of_a_squash_equals_the_one_that_the_head_makes(values):
    """Learners take it back by this function: it must be the same to the last digits."""
    raw = np.array(values, F)
    plain = GaussianHead((0.0,) * len(raw), squash=False).greedy(raw, None)[1]
    squashed = GaussianHead((0.0,) * len(raw), squash=True).greedy(raw, None)[1]
    correction = log_one_minus_tanh_squared(raw.astype(np.float64)).sum()
    assert squashed == pytest.approx(plain - correction, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("raw", "expected"), [(0.0, 0.0), (1.0, math.log(1 - math.tanh(1) ** 2))])
def test_the_correction_is_that_of_the_formula_and_even(raw, expected):
    """And a straight line far out."""
    found = log_one_minus_tanh_squared(np.array([raw, -raw, 1e6, -1e6]))
    line = 2 * math.log(2) - 2e6
    assert found.tolist() == pytest.approx([expected, expected, line, line], abs=1e-12)


@pytest.mark.parametrize("squash", [False, True])
def test_real_vectors_have_no_mask(squash):
    """Not even one that allows everything."""
    for head, outputs, _ in heads(2, squash=squash):
        mask = np.ones(2, np.bool_)
        with pytest.raises(MaskError, match="leave it out"):
            head.sample(outputs, mask, random.Random(0).random)
        with pytest.raises(MaskError, match="leave it out"):
            head.greedy(outputs, mask)


ABSURD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("bad", ABSURD)
@pytest.mark.parametrize("place", [0, 1])
def test_means_that_are_not_finite_are_refused(squash, bad, place):
    """As an error of this package: an application may turn numpy's warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for head, outputs, _ in heads(2, squash=squash):
            outputs[place] = bad
            with pytest.raises(ObservationError, match="scale or normalise"):
                head.sample(outputs, None, random.Random(0).random)
            with pytest.raises(ObservationError, match="scale or normalise"):
                head.greedy(outputs, None)


def test_a_deviation_that_is_not_a_number_is_refused():
    """A clamp written the other way round would make -20 of it."""
    outputs = np.array([0.0, np.nan], F)
    with pytest.raises(ObservationError, match="scale or normalise"):
        StateGaussianHead(squash=False).sample(outputs, None, random.Random(0).random)


@pytest.mark.parametrize("log_std", [-LOG_STD_LIMIT, -20.0, 0.0, LOG_STD_LIMIT])
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e6, 1e30, LARGEST_FLOAT32])
@pytest.mark.parametrize("squash", [False, True])
def test_what_is_recorded_is_finite_as_float32_or_refused(log_std, mean, squash):
    """The rounding of a huge mean is larger than the deviation; next to the end, it overflows."""
    head, means, draw = GaussianHead((log_std,) * 2, squash), np.full(2, mean, F), random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for numbers_drawn in (draw.random, numbers(LARGEST, 0.125)):
            try:
                raw, log_prob = head.sample(means, None, numbers_drawn)
            except ObservationError:
                assert mean > 1e30
                continue
            assert np.isfinite(raw).all()
            assert np.isfinite(F(log_prob))


def test_heads_cannot_be_changed_and_leave_their_outputs_alone():
    """Threads share them."""
    head, outputs = StateGaussianHead(squash=True), logits(4)
    before = outputs.copy()
    head.sample(outputs, None, random.Random(0).random)
    assert np.array_equal(outputs, before)
    with pytest.raises(AttributeError):
        head.squash = False  # type: ignore[misc]
    assert not hasattr(CategoricalHead(), "__dict__")
