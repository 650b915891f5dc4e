"""Chance before the first model, for actions that are no single integer: true probabilities."""

import itertools
import math
import random
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from rl4sys_stream.errors import MaskError
from rl4sys_stream.policy.policy import UniformPolicy
from rl4sys_stream.spaces import Box, MultiBinary, MultiDiscrete, Space
from rl4sys_stream.spaces.actions import ActionFormat

F = np.float32
OBS = np.zeros(3, F)
LARGEST = math.nextafter(1.0, 0.0)


def chance(space: Space, *, squash: bool = False) -> UniformPolicy:
    """What acts before a model."""
    return UniformPolicy(ActionFormat.of(space, squash=squash))


def draws(policy: UniformPolicy, count: int) -> tuple[NDArray[np.float64], set[float]]:
    """Raw actions float64 [count, D], and what was said of their probabilities."""
    draw = random.Random(2).random
    found = [policy.act(OBS, None, draw) for _ in range(count)]
    return np.array([raw for raw, _ in found], np.float64), {log_prob for _, log_prob in found}


@pytest.mark.parametrize("space", [MultiDiscrete((3, 2)), MultiBinary(2)])
def test_several_choices_are_uniform_over_all_combinations(space):
    """With the true probability of each."""
    policy = chance(space)
    drawn, said = draws(policy, 6000)
    combinations = math.prod(policy.actions.nvec)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == combinations
    assert np.abs(counts / 6000 - 1 / combinations).max() < 0.02
    assert list(said) == pytest.approx([-math.log(combinations)])


def test_several_choices_are_uniform_over_what_their_masks_allow():
    """Each has its own part of the mask."""
    policy, draw = chance(MultiDiscrete((3, 2))), random.Random(1).random
    mask = np.array([True, False, True, False, True])
    found = [policy.act(OBS, mask, draw) for _ in range(100)]
    assert {str(raw) for raw, _ in found} == {"[0 1]", "[2 1]"}
    assert {log_prob for _, log_prob in found} == {-math.log(2)}
    greedy, _ = policy.greedy(OBS, mask)
    assert np.asarray(greedy).tolist() == [0, 1]
    with pytest.raises(MaskError, match="forbids every action"):
        policy.act(OBS, np.array([True, True, True, False, False]), draw)


def test_real_vectors_are_uniform_between_their_bounds():
    """Element by element; the density is one over the volume."""
    policy = chance(Box((2,), (-1.0, 0.0), (1.0, 8.0)))
    drawn, said = draws(policy, 20_000)
    shares = (drawn - [-1.0, 0.0]) / [2.0, 8.0]
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert np.abs(np.sort(shares, axis=0)[::200] - np.linspace(0, 1, 100)[:, None]).max() < 0.02
    assert list(said) == pytest.approx([-math.log(16.0)])
    assert np.asarray(policy.greedy(OBS, None)[0]).tolist() == [0.0, 4.0]


def test_squashed_actions_are_uniform_when_they_are_applied():
    """The density is that of tanh of the raw action: one half for each element."""
    policy = chance(Box((2,), (-1.0, 0.0), (1.0, 8.0)), squash=True)
    drawn, said = draws(policy, 20_000)
    applied = np.array([policy.actions.applied(raw.astype(F)) for raw in drawn])
    shares = (applied - [-1.0, 0.0]) / [2.0, 8.0]
    assert np.abs(np.sort(shares, axis=0)[::200] - np.linspace(0, 1, 100)[:, None]).max() < 0.02
    assert list(said) == pytest.approx([-2 * math.log(2.0)])
    assert np.asarray(policy.greedy(OBS, None)[0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("space", [Box((2,)), Box((2,), low=0.0), Box((2,), high=(1.0, 2.0))])
def test_real_vectors_without_all_bounds_are_normal(space):
    """Mean 0, deviation 1: where a Gaussian policy begins."""
    policy = chance(space)
    drawn, _ = draws(policy, 5000)
    assert np.abs(drawn.mean(axis=0)).max() < 0.05
    assert np.abs(drawn.std(axis=0) - 1).max() < 0.05
    raw, log_prob = policy.act(OBS, None, random.Random(3).random)
    size = float(np.square(np.asarray(raw, np.float64)).sum())
    assert log_prob == pytest.approx(-0.5 * size - math.log(2 * math.pi))
    greedy, log_prob = policy.greedy(OBS, None)
    assert np.asarray(greedy).tolist() == [0.0, 0.0]
    assert log_prob == pytest.approx(-math.log(2 * math.pi))


@pytest.mark.parametrize("squash", [False, True])
def test_an_element_with_one_value_has_a_density_all_the_same(squash):
    """One over its width of 0 would be infinite, and its whole trajectory quarantined."""
    policy = chance(Box((2,), (0.0, 7.0), (4.0, 7.0)), squash=squash)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw in (0.0, 0.3, LARGEST):
            raw, log_prob = policy.act(OBS, None, itertools.repeat(draw).__next__)
            assert np.isfinite(raw).all()
            assert log_prob == pytest.approx(-math.log(4.0))
            assert np.asarray(policy.actions.applied(raw))[1] == 7.0


@pytest.mark.parametrize("squash", [False, True])
def test_both_ends_of_the_uniform_numbers_give_finite_raw_actions(squash):
    """Squashed, the bounds themselves have none; and the widest Box is wider than float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bound, draw in itertools.product((1.0, 3e38), (0.0, 5e-324, 0.5, LARGEST)):
            policy = chance(Box((2,), -bound, bound), squash=squash)
            raw, log_prob = policy.act(OBS, None, itertools.repeat(draw).__next__)
            assert np.isfinite(raw).all()
            assert math.isfinite(F(log_prob))


@pytest.mark.parametrize("space", [Box((2,)), Box((2,), 0, 1)])
def test_real_vectors_have_no_mask_by_chance_either(space):
    """As with a model."""
    with pytest.raises(MaskError, match="leave it out"):
        chance(space).act(OBS, np.ones(2, np.bool_), random.Random(0).random)
    with pytest.raises(MaskError, match="leave it out"):
        chance(space).greedy(OBS, np.ones(2, np.bool_))
