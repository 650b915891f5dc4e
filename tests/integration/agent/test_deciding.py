"""Acting: with chance or the fallback before a model, with whole models after, and always."""

import math
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from rl4sys_stream import (
    MaskError,
    ObservationError,
    StreamAgent,
    TrajectoryStateError,
    UsageError,
)
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.format import FALLBACK_TOKEN
from rl4sys_stream.wire.trajectory import BehaviorRun, End
from tests.integration.agent.world import N_ACTIONS, OBS, OBS_DIM, World, play, weights


def acts(agent: StreamAgent, version: int) -> bool:
    """Whether that version acts."""
    return agent.version == version


def test_before_any_model_actions_are_uniform_with_their_true_probability(world: World):
    """Over the allowed actions; version 0, so that the learner knows."""
    with world.agent(seed=1) as agent:
        seen = set()
        for _ in range(200):
            _, action = agent.request_for_action(None, OBS, [True, False, True, True])
            assert (action.version, action.token) == (0, "")
            assert action.log_prob == pytest.approx(-math.log(3))
            seen.add(int(action))
        assert seen == {0, 2, 3}


def test_before_any_model_the_fallback_decides_and_is_marked_as_such(world: World):
    """It sees what the application gave, and its steps say that no probability is known."""
    calls = []

    def fallback(obs: object, mask: object) -> int:
        calls.append((obs, mask))
        return 2

    observation, mask = [0.0, 1.0, 2.0], [1, 1, 1, 0]
    with world.agent(fallback=fallback) as agent:
        traj, action = agent.request_for_action(None, observation, mask)
        assert (int(action), action.version, action.log_prob) == (2, 0, 0.0)
        assert calls == [(observation, mask)]
        agent.add_to_trajectory(traj, action)
        action.update_reward(1)
        agent.mark_end_of_trajectory(traj)
        assert agent.flush()
    (sent,) = world.sent()
    assert sent.trajectory.behavior == (BehaviorRun(0, FALLBACK_TOKEN, 1),)


def test_a_fallback_that_decides_for_no_action_is_told_so(world: World):
    """It is the application's own code."""
    agent = world.agent(fallback=lambda obs, mask: N_ACTIONS)
    with agent, pytest.raises(UsageError, match="the fallback decided"):
        agent.request_for_action(None, OBS)


def test_a_published_model_acts_as_soon_as_its_notice_is_there(world: World):
    """From the next decision on, with its own version, token and probability."""
    with world.agent(fallback=lambda obs, mask: 3, poll_interval_s=60.0) as agent:
        eventually(world.registered)
        assert not agent.wait_for_model(0.0)
        eventually(lambda: agent.status().broker == "up")
        world.publish(1, weights(preferred=2))
        assert agent.wait_for_model(10)
        _, action = agent.request_for_action(None, OBS)
        assert (int(action), action.version, action.token) == (2, 1, "1:worker")
        assert -1e-3 < action.log_prob <= 0
        assert (agent.version, agent.status().version) == (1, 1)


def test_a_model_without_a_notice_is_found_by_polling(world: World):
    """Pub/sub may lose a notice."""
    with world.agent() as agent:
        eventually(lambda: agent.status().broker == "up")
        for version in (1, 2, 3):
            world.publish(version, weights(preferred=version), notice=False)
            eventually(partial(acts, agent, version))
            assert int(agent.evaluate(OBS)) == version


def test_a_model_that_was_there_before_the_agent_is_taken_at_once(world: World):
    """An agent that restarts acts with the newest model."""
    world.publish(7, weights(preferred=1))
    with world.agent() as agent:
        assert agent.wait_for_model(10)
        assert agent.version == 7


def test_a_model_that_does_not_decode_is_counted_and_the_old_one_stays(world: World):
    """And the next good one is taken."""
    with world.agent() as agent:
        world.publish(1, weights(preferred=1))
        assert agent.wait_for_model(10)
        world.corrupt_head(2, "1:worker")
        eventually(lambda: agent.status().models_refused == 1)
        assert (agent.version, int(agent.evaluate(OBS))) == (1, 1)
        assert agent.status().last_error != ""
        world.publish(3, weights(preferred=3))
        eventually(lambda: agent.version == 3)


def test_a_model_of_another_network_is_refused(world: World):
    """It fits the spaces, but not what the client registered."""
    with world.agent() as agent:
        eventually(world.registered)
        world.publish(1, weights(hidden=32))
        eventually(lambda: agent.status().models_refused == 1)
        assert agent.version == 0


def test_a_lower_version_under_a_new_token_is_taken_and_counted(world: World):
    """The broker lost its last writes, and the number was issued again."""
    with world.agent() as agent:
        world.publish(5, weights(preferred=1), token="1:before")
        eventually(lambda: agent.version == 5)
        world.broker.unlink(world.keys.head)
        world.publish(4, weights(preferred=2), token="2:after")
        eventually(lambda: agent.version == 4)
        assert int(agent.evaluate(OBS)) == 2
        assert agent.status().rollbacks == 1


def test_a_model_whose_version_was_published_again_is_counted_however_late_that_is_seen(
    world: World,
):
    """The numbers have caught up by then; the token of the one that acted is nowhere."""
    with world.agent(poll_interval_s=3600.0) as agent:
        world.publish(1, weights(preferred=1))
        kept = world.broker.hash_all(world.keys.head)
        world.publish(2, weights(preferred=2), token="1:worker")
        eventually(lambda: agent.version == 2)
        assert agent.status().rollbacks == 0
        world.broker.hash_set(
            world.keys.head, {name.decode(): value for name, value in kept.items()}
        )
        world.publish(2, weights(preferred=3), token="2:next", notice=False)
        world.publish(3, weights(preferred=3), token="2:next")
        eventually(lambda: agent.version == 3)
        assert agent.status().rollbacks == 1
        world.publish(4, weights(preferred=3), token="3:next")
        eventually(lambda: agent.version == 4)
        assert (agent.status().rollbacks, agent.status().lineage_changes) == (1, 0)


def test_a_model_of_another_lineage_is_counted_apart(world: World):
    """An operator may have reset the client: that is no loss."""
    with world.agent() as agent:
        world.publish(3, weights(preferred=1))
        eventually(lambda: agent.version == 3)
        world.publish(1, weights(preferred=2), token="2:next", lineage="second")
        eventually(lambda: agent.version == 1)
        assert (agent.status().rollbacks, agent.status().lineage_changes) == (0, 1)


def test_a_trajectory_across_a_refresh_records_both_models(world: World):
    """Step by step: nothing is labelled with a model that did not choose it."""
    with world.agent() as agent:
        eventually(world.registered)
        traj = None
        for version in (0, 1, 2):
            if version:
                world.publish(version, weights(preferred=version))
                eventually(partial(acts, agent, version))
            for _ in range(2):
                traj, action = agent.request_for_action(traj, OBS)
                agent.add_to_trajectory(traj, action)
                action.update_reward(0)
        assert traj is not None
        agent.mark_end_of_trajectory(traj)
        assert agent.flush()
    assert world.sent()[0].trajectory.behavior == (
        BehaviorRun(0, "", 2),
        BehaviorRun(1, "1:worker", 2),
        BehaviorRun(2, "1:worker", 2),
    )


def test_decisions_are_never_made_by_a_half_replaced_model(world: World):
    """Each action is its own version's, while versions come in as fast as they can."""
    with world.agent() as agent:
        eventually(world.registered)
        stop = threading.Event()
        wrong: list[tuple[int, int]] = []

        def decide() -> None:
            while not stop.is_set():
                action = agent.evaluate(OBS)
                if action.version and int(action) != action.version % N_ACTIONS:
                    wrong.append((int(action), action.version))

        threads = [threading.Thread(target=decide) for _ in range(2)]
        for thread in threads:
            thread.start()
        for version in range(1, 30):
            world.publish(version, weights(preferred=version % N_ACTIONS))
        eventually(lambda: agent.version == 29)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_agents_of_one_seed_draw_the_same_actions(world: World):
    """And of another seed, others."""

    def draw(seed: int) -> list[int]:
        with world.agent(seed=seed) as agent:
            return [int(agent.request_for_action(None, OBS)[1]) for _ in range(50)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_evaluation_is_greedy_or_sampled_and_never_recorded(world: World):
    """Nothing of it reaches the stream."""
    with world.agent(seed=1) as agent:
        world.publish(1, weights(preferred=1, strength=1.0))
        assert agent.wait_for_model(10)
        assert {int(agent.evaluate(OBS)) for _ in range(50)} == {1}
        assert len({int(agent.evaluate(OBS, deterministic=False)) for _ in range(200)}) > 1
        action = agent.evaluate(OBS, [True, False, True, True])
        assert int(action) != 1
        action.update_reward(1)
        traj, _ = agent.request_for_action(None, OBS)
        with pytest.raises(TrajectoryStateError, match="evaluation"):
            agent.add_to_trajectory(traj, action)
        play(agent, 1)
        assert agent.flush()
    assert len(world.sent()) == 1


def test_an_action_is_an_integer_in_every_way_that_applications_use(world: World):
    """int(), indexing, .action, and upstream's .act with .item()."""
    with world.agent(seed=1) as agent:
        _, action = agent.request_for_action(None, OBS)
        assert int(action) == action.action == action.act.item() == range(N_ACTIONS)[action]


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ([1, 2], "shape"),
        ([1, 2, float("nan")], "finite"),
        ([[1, 2, 3]], "shape"),
        ("obs", "numeric"),
        (None, "shape"),
    ],
)
def test_a_wrong_observation_is_refused_and_nothing_changes(world: World, observation, words):
    """The application sees its own mistake at the call that made it."""
    with world.agent() as agent:
        traj, action = agent.request_for_action(None, OBS)
        with pytest.raises(ObservationError, match=words):
            agent.request_for_action(traj, observation)
        agent.add_to_trajectory(traj, action)
        action.update_reward(1)
        agent.mark_end_of_trajectory(traj, action)
        assert agent.flush()
    assert len(world.sent()) == 1


def test_a_mask_that_forbids_everything_is_refused(world: World):
    """With and without a model."""
    with world.agent() as agent:
        with pytest.raises(MaskError, match="forbids every action"):
            agent.request_for_action(None, OBS, [False] * N_ACTIONS)
        world.publish(1, weights())
        assert agent.wait_for_model(10)
        with pytest.raises(MaskError, match="forbids every action"):
            agent.request_for_action(None, OBS, [False] * N_ACTIONS)


def test_masked_steps_arrive_with_their_masks_and_allowed_actions(world: World):
    """The decoder checks that no forbidden action was taken."""
    with world.agent(seed=2) as agent:
        world.publish(1, weights(preferred=0))
        assert agent.wait_for_model(10)
        traj = None
        masks = np.random.default_rng(1).random((40, N_ACTIONS)) < 0.5
        masks[~masks.any(axis=1), 1] = True
        for mask in masks:
            traj, action = agent.request_for_action(traj, OBS, mask)
            agent.add_to_trajectory(traj, action)
            action.update_reward(1)
        assert traj is not None
        agent.mark_end_of_trajectory(traj)
        assert agent.flush()
    received = world.sent()[0].trajectory.masks
    assert received is not None
    assert np.array_equal(received, masks)


def test_what_is_allowed_after_a_cut_or_a_truncation_arrives(world: World):
    """Or is refused like any mask; where an episode terminates nobody looks at it."""
    mask, later, last = np.eye(N_ACTIONS, dtype=np.bool_)[:3]
    with world.agent() as agent:
        traj = None
        for _ in range(2):
            traj, action = agent.request_for_action(traj, OBS, mask)
            agent.add_to_trajectory(traj, action)
            action.update_reward(1)
            if len(traj) == 1:
                with pytest.raises(MaskError, match="forbids every action"):
                    agent.cut_trajectory(traj, OBS, np.zeros(N_ACTIONS))
                agent.cut_trajectory(traj, OBS, later)
        assert traj is not None
        with pytest.raises(MaskError, match="shape"):
            agent.mark_end_of_trajectory(traj, None, True, OBS, [1])
        agent.mark_end_of_trajectory(traj, truncated=True, final_obs=OBS, final_mask=last)
        traj, action = agent.request_for_action(None, OBS, mask)
        agent.add_to_trajectory(traj, action)
        action.update_reward(1)
        agent.mark_end_of_trajectory(traj, final_mask=np.zeros(N_ACTIONS))
        assert agent.flush()
    cut, truncated, terminated = [sent.trajectory.final_mask for sent in world.sent()]
    assert cut is not None
    assert cut.tolist() == later.tolist()
    assert truncated is not None
    assert truncated.tolist() == last.tolist()
    assert terminated is None


def test_the_buffer_of_an_observation_may_be_reused(world: World):
    """Environments write the next observation into the same array."""
    buffer = np.zeros(OBS_DIM, np.float32)
    with world.agent() as agent:
        traj = None
        for value in range(3):
            buffer[:] = value
            traj, action = agent.request_for_action(traj, buffer)
            agent.add_to_trajectory(traj, action)
            action.update_reward(value)
        buffer[:] = 3
        assert traj is not None
        agent.mark_end_of_trajectory(traj, truncated=True, final_obs=buffer)
        buffer[:] = 99
        assert agent.flush()
    trajectory = world.sent()[0].trajectory
    assert trajectory.observations[:, 0].tolist() == [0, 1, 2]
    assert trajectory.end is End.TRUNCATED
    assert trajectory.final_observation is not None
    assert trajectory.final_observation[0] == 3


def test_a_truncated_end_without_its_observation_is_refused(world: World):
    """And can be made good."""
    with world.agent() as agent:
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)
        with pytest.raises(UsageError, match="final_obs="):
            agent.mark_end_of_trajectory(traj, action, truncated=True)
        agent.mark_end_of_trajectory(traj, action, truncated=True, final_obs=OBS)


def test_trajectories_and_agents_are_not_mixed_up(world: World):
    """Swapped arguments and another agent's trajectory are named."""
    with world.agent() as one, world.agent() as two:
        traj, action = one.request_for_action(None, OBS)
        with pytest.raises(UsageError, match=r"request_for_action\(traj, obs\)"):
            one.request_for_action(OBS)  # type: ignore[arg-type]
        for wrong in (
            lambda: two.request_for_action(traj, OBS),
            lambda: two.add_to_trajectory(traj, action),
            lambda: two.mark_end_of_trajectory(traj),
        ):
            with pytest.raises(TrajectoryStateError, match="another agent"):
                wrong()


def test_an_ended_trajectory_is_followed_by_a_new_one(world: World):
    """The application may keep passing the same variable."""
    with world.agent() as agent:
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)
        agent.update_action_reward(action, 1)
        agent.mark_end_of_trajectory(traj, action)
        following, _ = agent.request_for_action(traj, OBS)
        assert following is not traj
        assert (traj.ended, following.ended, len(following)) == (True, False, 0)


def test_what_is_no_handle_is_a_usage_error(world: World):
    """An application that begins with `trajectory = None` may end before its first decision."""
    agent = world.agent()
    trajectory, action = agent.request_for_action(None, OBS)
    wrong: list[tuple[Any, tuple[Any, ...]]] = [
        (agent.mark_end_of_trajectory, (None,)),
        (agent.mark_end_of_trajectory, (trajectory, 3)),
        (agent.add_to_trajectory, (None, action)),
        (agent.add_to_trajectory, (trajectory, 1)),
        (agent.update_action_reward, (1, 1.0)),
    ]
    for call, arguments in wrong:
        with pytest.raises(UsageError, match=r"as request_for_action returned them|is an action"):
            call(*arguments)
    agent.close(0.1)
