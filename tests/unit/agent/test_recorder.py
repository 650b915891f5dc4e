"""What the application records becomes exactly the trajectories that it meant."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rl4sys_stream.agent.handles import ActionHandle
from rl4sys_stream.errors import TrajectoryStateError, UsageError
from rl4sys_stream.wire.trajectory import BehaviorRun, End
from tests.unit.agent.rig import Rig

FINAL = np.array([9, 9, 9], np.float32)


def test_a_terminated_episode_becomes_one_trajectory_with_its_columns_in_order():
    """Observations, actions, rewards and log-probabilities arrive as recorded."""
    rig = Rig()
    handle = rig.recorder.begin()
    for value in range(3):
        rig.step(handle, value, reward=value * 10)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    (trajectory,) = rig.sent()
    assert trajectory.observations.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert trajectory.actions.tolist() == [1, 1, 1]
    assert trajectory.rewards.tolist() == [0, 10, 20]
    assert trajectory.log_probs.tolist() == [-1.5] * 3
    assert trajectory.masks is None
    assert trajectory.final_observation is None
    assert (trajectory.end, trajectory.episode, trajectory.offset) == (End.TERMINATED, 0, 0)


def test_a_truncated_episode_carries_what_the_last_action_led_to():
    """A time limit bootstraps from the final observation."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.step(handle)
    rig.recorder.end(handle, action, End.TRUNCATED, FINAL)
    (trajectory,) = rig.sent()
    assert trajectory.end is End.TRUNCATED
    assert trajectory.final_observation is not None
    assert trajectory.final_observation.tolist() == [9, 9, 9]


def test_a_trajectory_waits_for_rewards_that_come_after_its_end():
    """It is sealed by the last missing reward, whichever step that is on."""
    rig = Rig()
    handle = rig.recorder.begin()
    first, second = rig.step(handle, reward=None), rig.step(handle, reward=None)
    rig.recorder.end(handle, second, End.TERMINATED, None)
    second.update_reward(2)
    assert (rig.counts.sealing, rig.counts.queued) == (1, 0)
    first.update_reward(1)
    assert (rig.counts.sealing, rig.counts.queued) == (0, 1)
    assert rig.sent()[0].rewards.tolist() == [1, 2]


def test_a_reward_may_be_corrected_until_the_trajectory_is_sealed_and_not_after():
    """The last value counts; a later one is refused, not lost silently."""
    rig = Rig()
    handle = rig.recorder.begin()
    first, second = rig.step(handle, reward=5), rig.step(handle, reward=None)
    first.update_reward(6)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    first.update_reward(7)
    second.update_reward(0)
    with pytest.raises(TrajectoryStateError, match="sealed"):
        first.update_reward(8)
    assert rig.sent()[0].rewards.tolist() == [7, 0]


def test_a_reward_may_be_set_before_the_action_is_added():
    """The order of `update_reward` and `add_to_trajectory` is free."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.request(handle)
    action.update_reward(3)
    rig.recorder.add(handle, action)
    rig.recorder.end(handle, action, End.TERMINATED, None)
    assert rig.sent()[0].rewards.tolist() == [3]


class Interrupted(ActionHandle):
    """An action during whose `update_reward` another thread gets its turn."""

    __slots__ = ("interruption", "value")
    interruption: Callable[[], None]
    value: float | None

    @property
    def reward(self) -> float | None:
        """What the slot of the parent class is for."""
        return getattr(self, "value", None)

    @reward.setter
    def reward(self, value: float | None) -> None:
        if value is not None:
            self.interruption()
        self.value = value


def test_a_trajectory_that_ends_while_its_last_reward_is_being_set_is_sealed():
    """The end saw no reward yet, the reward no end: the second look finds it."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = Interrupted(1, 1, -1.0, 0, "", FINAL, None, handle.episode)
    rig.recorder.add(handle, action)
    action.interruption = lambda: rig.recorder.end(handle, action, End.TERMINATED, None)
    action.update_reward(3)
    assert [trajectory.rewards.tolist() for trajectory in rig.sent()] == [[3]]


@pytest.mark.parametrize(
    "reward", [float("nan"), float("inf"), -float("inf"), 1e39, "1.0", None, [1, 2], b"1"]
)
def test_a_reward_that_is_no_finite_number_is_refused_by_name(reward):
    """Also numbers that become infinite as float32."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.step(handle, reward=None)
    with pytest.raises(UsageError, match="finite number"):
        action.update_reward(reward)
    assert action.reward is None


@pytest.mark.parametrize("reward", [2, 2.0, True, np.float32(2), np.int64(2), np.array(2.0)])
def test_anything_that_is_a_number_is_a_reward(reward):
    """Numpy scalars and arrays of one element included."""
    rig = Rig()
    action = rig.step(rig.recorder.begin(), reward=None)
    action.update_reward(reward)
    assert action.reward == float(reward)


def test_steps_of_several_models_are_told_apart_in_runs():
    """Each step keeps the version and token that chose it, also when a model comes back."""
    rig = Rig()
    handle = rig.recorder.begin()
    for version, token in [(0, ""), (1, "1:a"), (1, "1:a"), (2, "1:b"), (1, "1:a")]:
        action = rig.request(handle, version=version, token=token)
        rig.recorder.add(handle, action)
        action.update_reward(0)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    assert rig.sent()[0].behavior == (
        BehaviorRun(0, "", 1),
        BehaviorRun(1, "1:a", 2),
        BehaviorRun(2, "1:b", 1),
        BehaviorRun(1, "1:a", 1),
    )


def test_steps_without_a_mask_among_masked_ones_allow_everything():
    """The mask column is filled where only some steps had one."""
    rig = Rig()
    handle = rig.recorder.begin()
    for mask in (None, [False, True, True, False]):
        action = rig.request(handle, mask=mask)
        rig.recorder.add(handle, action)
        action.update_reward(0)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    masks = rig.sent()[0].masks
    assert masks is not None
    assert masks.tolist() == [[True] * 4, [False, True, True, False]]


MASK, OTHER = [False, True, True, False], [True, True, False, False]


def masked_parts(
    rig: Rig, masks: Sequence[list[bool] | None], final: list[bool] | None
) -> list[list[bool] | None]:
    """The final masks of what is sent after one step under each of `masks`, then truncation."""
    handle = rig.recorder.begin()
    for mask in masks:
        action = rig.request(handle, mask=mask)
        rig.recorder.add(handle, action)
        action.update_reward(0)
    allowed = None if final is None else np.array(final)
    rig.recorder.end(handle, None, End.TRUNCATED, FINAL, allowed)
    found = [part.final_mask for part in rig.sent()]
    return [None if mask is None else mask.tolist() for mask in found]


def test_a_truncated_episode_carries_what_was_allowed_at_its_end():
    """As the application says it; None where it does not, or nothing was ever forbidden."""
    assert masked_parts(Rig(), [MASK, MASK], OTHER) == [OTHER]
    assert masked_parts(Rig(), [MASK, MASK], None) == [None]
    assert masked_parts(Rig(), [None, None], OTHER) == [OTHER]
    assert masked_parts(Rig(), [None, None], [True] * 4) == [None]


def test_an_automatic_cut_knows_what_is_allowed_next():
    """It is made by the next action, which was chosen under a mask, or under none."""
    rig = Rig(max_steps=1)
    masks = [MASK, OTHER, None, None, OTHER]
    assert masked_parts(rig, masks, None) == [OTHER, [True] * 4, None, OTHER, None]


def test_a_cut_by_the_application_carries_what_it_says_is_allowed_next():
    """Nobody has chosen an action there yet."""
    rig = Rig()
    handle = rig.recorder.begin()
    for mask in (np.array(OTHER), None):
        action = rig.request(handle, mask=MASK)
        rig.recorder.add(handle, action)
        action.update_reward(0)
        rig.recorder.cut(handle, FINAL, mask)
    said, unsaid = rig.sent()
    assert said.final_mask is not None
    assert said.final_mask.tolist() == OTHER
    assert unsaid.final_mask is None


def test_steps_without_a_prior_among_others_have_zeros():
    """Nothing was added to their logits."""
    rig = Rig()
    handle = rig.recorder.begin()
    for prior in ([0.5, -1.0, 0.0, 2.0], None):
        action = rig.request(handle, prior=prior)
        rig.recorder.add(handle, action)
        action.update_reward(1.0)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    priors = rig.sent()[0].priors
    assert priors is not None
    assert priors.tolist() == [[0.5, -1.0, 0.0, 2.0], [0.0] * 4]


def test_a_probability_that_rounding_took_above_one_is_logged_as_one():
    """The decoder refuses positive log-probabilities."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.request(handle, log_prob=1e-9)
    rig.recorder.add(handle, action)
    action.update_reward(0)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    assert rig.sent()[0].log_probs.tolist() == [0.0]


def test_a_full_trajectory_is_cut_and_goes_on_under_the_same_handle():
    """Each part bootstraps from the observation of the next one's first step."""
    rig = Rig(max_steps=2)
    handle = rig.recorder.begin()
    for value in range(5):
        rig.step(handle, value, reward=value)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    parts = rig.sent()
    assert [part.end for part in parts] == [End.CUT, End.CUT, End.TERMINATED]
    assert [part.offset for part in parts] == [0, 2, 4]
    assert [part.episode for part in parts] == [0, 0, 0]
    assert [part.rewards.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    finals = [part.final_observation for part in parts]
    assert [None if final is None else final.tolist() for final in finals] == [
        [2, 2, 2],
        [4, 4, 4],
        None,
    ]


def test_a_full_trajectory_that_ends_right_then_is_not_cut():
    """No empty last part, and the end keeps its kind."""
    rig = Rig(max_steps=2)
    handle = rig.recorder.begin()
    for value in range(2):
        rig.step(handle, value)
    rig.request(handle, 2)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    assert [part.end for part in rig.sent()] == [End.TERMINATED]


def test_rewards_of_a_cut_part_may_come_late():
    """The cut part waits; the parts after it do not."""
    rig = Rig(max_steps=2)
    handle = rig.recorder.begin()
    late = rig.step(handle, 0, reward=None)
    for value in (1, 2, 3):
        rig.step(handle, value)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    assert [part.offset for part in rig.sent()] == [2]
    late.update_reward(-1)
    (part,) = rig.sent()
    assert (part.offset, part.rewards.tolist()) == (0, [-1, 1])


def test_requests_that_run_ahead_of_their_adding_are_cut_in_the_order_of_adding():
    """An application may request several actions before it adds the first."""
    rig = Rig(max_steps=2)
    handle = rig.recorder.begin()
    actions = [rig.request(handle, value) for value in range(3)]
    for action in actions:
        rig.recorder.add(handle, action)
        action.update_reward(0)
    rig.recorder.end(handle, actions[2], End.TERMINATED, None)
    assert [part.observations[:, 0].tolist() for part in rig.sent()] == [[0, 1], [2]]


def test_open_trajectories_do_not_mix():
    """Two episodes at once end as two trajectories with their own steps."""
    rig = Rig()
    one, two = rig.recorder.begin(), rig.recorder.begin()
    for value in range(4):
        rig.step(one if value % 2 else two, value)
    assert rig.recorder.open == 2
    rig.recorder.end(two, None, End.TERMINATED, None)
    rig.recorder.end(one, None, End.TERMINATED, None)
    assert rig.recorder.open == 0
    assert [(t.episode, t.observations[:, 0].tolist()) for t in rig.sent()] == [
        (1, [0, 2]),
        (0, [1, 3]),
    ]


def test_ending_twice_is_refused():
    """The second end would make a trajectory of nothing."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.step(handle)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    with pytest.raises(TrajectoryStateError, match="has ended already"):
        rig.recorder.end(handle, None, End.TERMINATED, None)
    assert rig.counts.accepted == 1


def test_ending_an_empty_trajectory_is_refused():
    """And the handle stays usable."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.request(handle)
    with pytest.raises(TrajectoryStateError, match="empty"):
        rig.recorder.end(handle, None, End.TERMINATED, None)
    rig.step(handle)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    assert rig.counts.queued == 1


def test_ending_with_an_action_that_was_not_added_is_refused():
    """Its step would be missing from the trajectory."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.step(handle)
    forgotten = rig.request(handle)
    with pytest.raises(TrajectoryStateError, match="not recorded"):
        rig.recorder.end(handle, forgotten, End.TERMINATED, None)


def test_adding_an_action_twice_is_refused():
    """A step would be trained on twice."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.step(handle)
    with pytest.raises(TrajectoryStateError, match="recorded already"):
        rig.recorder.add(handle, action)


def test_adding_an_action_to_a_foreign_trajectory_is_refused():
    """Its observation belongs to the other episode."""
    rig = Rig()
    action = rig.request(rig.recorder.begin())
    with pytest.raises(TrajectoryStateError, match="was requested on episode 0"):
        rig.recorder.add(rig.recorder.begin(), action)


def test_adding_to_an_ended_trajectory_is_refused():
    """What was sealed cannot grow."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.step(handle)
    late = rig.request(handle)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    with pytest.raises(TrajectoryStateError, match="has ended"):
        rig.recorder.add(handle, late)


def test_adding_an_evaluation_action_is_refused():
    """It belongs to no episode."""
    rig = Rig()
    action = ActionHandle(0, 0, 0.0, 1, "1:a", FINAL, None, None)
    with pytest.raises(TrajectoryStateError, match="evaluation"):
        rig.recorder.add(rig.recorder.begin(), action)
