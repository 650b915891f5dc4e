"""Logits that an application gives with its decisions: acted by, recorded, and refused in words."""

import math

import numpy as np
import pytest

from rl4sys_stream import Box, PriorError, StreamAgent
from rl4sys_stream.wire.trajectory import BehaviorRun
from tests.integration.agent.world import (
    N_ACTIONS,
    OBS,
    OBS_DIM,
    World,
    play,
    weights,
)

PRIOR = [0.0, math.log(2.0), -1000.0, 0.0]
"""Of the first, second and fourth action: a quarter, a half, a quarter."""


def test_before_any_model_decisions_follow_the_prior_and_are_recorded_with_it(world: World):
    """With their true probability, as decisions of chance, so that they can be trained on."""
    with world.agent(seed=1) as agent:
        traj, counts = None, np.zeros(N_ACTIONS, np.int64)
        for _ in range(200):
            traj, action = agent.request_for_action(traj, OBS, prior=PRIOR)
            assert (action.version, action.token) == (0, "")
            assert action.log_prob == pytest.approx(-math.log(2 if int(action) == 1 else 4))
            agent.add_to_trajectory(traj, action)
            action.update_reward(0.0)
            counts[int(action)] += 1
        assert counts[2] == 0
        assert 70 < counts[1] < 130
        assert traj is not None
        agent.mark_end_of_trajectory(traj)
        assert agent.flush()
    (sent,) = world.sent()
    assert sent.trajectory.behavior == (BehaviorRun(0, "", 200),)
    assert sent.trajectory.priors is not None
    assert sent.trajectory.priors.tolist() == [np.array(PRIOR, np.float32).tolist()] * 200


def test_a_model_acts_on_its_logits_and_the_priors_together(world: World):
    """Recorded or not, drawn or best, within the mask."""
    with world.agent(seed=1) as agent:
        world.publish(1, weights(preferred=2, strength=20.0))
        assert agent.wait_for_model(10)
        assert int(agent.evaluate(OBS)) == 2
        prior = [0.0, 60.0, 0.0, 30.0]
        assert int(agent.evaluate(OBS, prior=prior)) == 1
        assert int(agent.evaluate(OBS, [True, False, True, True], prior)) == 3
        assert int(agent.evaluate(OBS, prior=prior, deterministic=False)) == 1
        traj, action = agent.request_for_action(None, OBS, None, prior)
        assert (int(action), action.version) == (1, 1)
        assert action.log_prob == pytest.approx(0.0, abs=1e-6)
        assert action.prior is not None
        assert action.prior.tolist() == prior
        agent.add_to_trajectory(traj, action)


def test_a_trajectory_without_priors_has_no_column(world: World):
    """Workers of before there was one read it as ever."""
    with world.agent() as agent:
        play(agent, 1)
        assert agent.flush()
    (sent,) = world.sent()
    assert sent.trajectory.priors is None
    assert b"prior" not in sent.fields


def test_a_prior_that_cannot_be_is_the_applications_mistake_and_costs_nothing(world: World):
    """Neither a decision nor a trajectory."""
    with world.agent() as agent:
        for prior, words in (([0.0, 1.0], "there are 4"), ([0.0, 0.0, math.nan, 0.0], "is nan")):
            with pytest.raises(PriorError, match=words):
                agent.request_for_action(None, OBS, prior=prior)
            with pytest.raises(PriorError, match=words):
                agent.evaluate(OBS, prior=prior)
        status = agent.status()
        assert (status.decisions, status.open) == (0, 0)


@pytest.mark.parametrize(
    ("overrides", "action_space", "words"),
    [
        ({}, Box((2,), -1, 1), "real-valued actions have no logits"),
        (
            {"algorithm": "DQN", "algorithm_parameters.total_timesteps": 1000},
            None,
            "DQN does not train on logits",
        ),
        (
            {"worker.max_entry_bytes": 16_384, "agent.max_trajectory_steps": 300},
            None,
            "carries at most 255 steps: set agent.max_trajectory_steps to no more, which is 300",
        ),
    ],
)
def test_clients_that_take_no_prior_say_why(redis_url, client_name, overrides, action_space, words):
    """No logits, no training on them, or no room for them in an entry."""
    space = action_space or {"type": "discrete", "n": N_ACTIONS}
    with StreamAgent(
        None, client_name, redis_url, Box((OBS_DIM,)), space, overrides=overrides, environ={}
    ) as agent:
        agent.request_for_action(None, OBS)
        with pytest.raises(PriorError, match=words):
            agent.request_for_action(None, OBS, prior=PRIOR)
