"""Masks and the fallback's decisions are checked where they come in."""

import numpy as np
import pytest

from rl4sys_stream.agent.inputs import as_action, as_mask, as_prior
from rl4sys_stream.errors import MaskError, PriorError, UsageError
from rl4sys_stream.spaces import Discrete
from rl4sys_stream.spaces.actions import ActionFormat


@pytest.mark.parametrize(
    "mask",
    [
        [True, False, True],
        (1, 0, 1),
        np.array([1.0, 0.0, 1.0], np.float32),
        np.array([1, 0, 1], np.int8),
    ],
)
def test_masks_of_bools_or_of_zeros_and_ones_are_the_same(mask):
    """Whatever kind of array the application has."""
    assert as_mask(mask, ActionFormat.of(Discrete(3))).tolist() == [True, False, True]


def test_a_mask_is_copied():
    """The application may write its next mask into the same buffer."""
    given = np.array([True, False])
    copy = as_mask(given, ActionFormat.of(Discrete(2)))
    given[:] = False
    assert copy.tolist() == [True, False]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([False, False], "forbids every action"),
        ([True], "shape"),
        ([[True, True]], "shape"),
        ([0.0, -np.inf], "nothing else"),
        ([1, 2], "nothing else"),
        (["yes", "no"], "nothing else"),
        ([[1], [1, 2]], "no array"),
        (True, "shape"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused_in_words(mask, words):
    """An additive mask of 0 and −inf, for one, would be read as its opposite."""
    with pytest.raises(MaskError, match=words):
        as_mask(mask, ActionFormat.of(Discrete(2)))


@pytest.mark.parametrize("decision", [2, np.int64(2), np.array(2)])
def test_any_integer_is_a_decision(decision):
    """Numpy's included."""
    assert as_action(decision, ActionFormat.of(Discrete(3)), None) == 2


@pytest.mark.parametrize(
    ("decision", "words"),
    [(1.0, "no integer"), (None, "no integer"), (-1, "actions are"), (3, "actions are")],
)
def test_a_decision_that_is_no_action_is_refused(decision, words):
    """The fallback is the application's own code, so this is for the application to mend."""
    with pytest.raises(UsageError, match=words):
        as_action(decision, ActionFormat.of(Discrete(3)), None)


def test_a_decision_that_the_mask_forbids_is_refused():
    """The learner would quarantine the whole trajectory."""
    with pytest.raises(UsageError, match="mask forbids"):
        as_action(1, ActionFormat.of(Discrete(2)), np.array([True, False]))


@pytest.mark.parametrize("prior", [[0, -1, 2], (0.0, -1.0, 2.0), np.array([0, -1, 2], np.int8)])
def test_a_prior_of_any_numbers_is_copied_as_float32(prior):
    """Whatever kind of array the application has, and may write into again."""
    copy = as_prior(prior, 3, "")
    assert copy.dtype == np.float32
    assert copy.tolist() == [0.0, -1.0, 2.0]
    given = np.zeros(2, np.float32)
    assert not np.shares_memory(given, as_prior(given, 2, ""))


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ([0.0], r"shape \(1,\); there are 2"),
        ([[0.0, 1.0]], "shape"),
        ([0.0, np.nan], r"prior\[1\] is nan"),
        ([-np.inf, 0.0], r"prior\[0\] is -inf.*forbid by the mask"),
        ([0.0, -86_400.0], r"prior\[1\] is -86400.*scale it"),
        ([10**400, 0.0], "no array|not object"),
        ([True, False], "not bool"),
        (["0", "1"], "a prior holds numbers"),
        ([[1], [1, 2]], "no array"),
        (1.0, "shape"),
    ],
)
def test_a_prior_that_cannot_be_meant_is_refused_in_words(prior, words):
    """A mask in its place, a forbidding -inf, or raw seconds, for some."""
    with pytest.raises(PriorError, match=words):
        as_prior(prior, 2, "")


def test_a_client_that_takes_no_prior_says_why():
    """Before anything else is looked at."""
    with pytest.raises(PriorError, match="DQN does not"):
        as_prior([0.0, np.nan], 2, "DQN does not train on logits")
