"""Policies that act late on purpose."""

import pytest

from benchmarks.learning.delay import DelayedSlot
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.policy import UniformPolicy, build_policy
from rl4sys_stream.spaces.actions import ActionFormat
from tests.unit.algorithms.samples import SPEC, make_ppo


def acting(versions_behind: int, installed: list[int]) -> list[int]:
    """The version that acts after each installation."""
    slot, export = (
        DelayedSlot(UniformPolicy(ActionFormat.of(SPEC.action_space)), versions=versions_behind),
        make_ppo().export(),
    )
    found = []
    for version in installed:
        model = Model(version, "token", "lineage", export.weights, export.extras)
        policy = build_policy(SPEC, export.weights, export.extras, version, "token")
        slot.install(model, policy, now=0.0)
        found.append(slot.policy.version)
        assert slot.model is model  # the refresher goes on from the newest
    return found


@pytest.mark.parametrize(
    ("versions_behind", "installed", "expected"),
    [
        (0, [1, 2, 3], [1, 2, 3]),
        (2, [1, 2, 3, 4, 5], [1, 1, 1, 2, 3]),
        (2, [1, 4, 5, 9], [1, 1, 1, 5]),
    ],
)
def test_the_policy_that_acts_is_as_old_as_asked_or_older(
    versions_behind: int, installed: list[int], expected: list[int]
) -> None:
    """Older where the version in between was never installed; the first one acts at first."""
    assert acting(versions_behind, installed) == expected
