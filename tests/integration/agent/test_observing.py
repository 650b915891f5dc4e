"""Observations with parts: recorded flat, in the order of the space that is registered."""

from typing import Any

import pytest

from rl4sys_stream import MultiBinary, ObservationError
from rl4sys_stream.broker.registry import require_registration
from rl4sys_stream.spaces import Box, Dict
from rl4sys_stream.testing import eventually
from tests.integration.agent.world import World

pytestmark = pytest.mark.integration

SPACE = Dict({"load": Box((), 0.0, 1.0), "on": MultiBinary(2)})
FIRST: Any = {"on": [1, 0], "load": 0.5}
WRONG: Any = {"on": [1, 2], "load": 0.5}
FINAL: Any = {"on": [0, 1], "load": 0.25}


def test_an_observation_with_parts_arrives_flat(world: World):
    """Also the final one; the registry knows the space with its parts and their order."""
    with world.agent(observation_space=SPACE) as agent:
        traj, action = agent.request_for_action(None, FIRST)
        agent.add_to_trajectory(traj, action)
        action.update_reward(1.0)
        agent.mark_end_of_trajectory(traj, action, truncated=True, final_obs=FINAL)
        assert agent.flush()
        eventually(world.registered)
    (sent,) = world.sent()
    assert sent.trajectory.observations.tolist() == [[0.5, 1.0, 0.0]]
    assert sent.trajectory.final_observation is not None
    assert sent.trajectory.final_observation.tolist() == [0.25, 0.0, 1.0]
    assert require_registration(world.broker, world.keys).spec.observation_space == SPACE


def test_a_part_that_does_not_fit_is_named_to_the_application(world: World):
    """At once, and nothing of it is recorded."""
    with world.agent(observation_space=SPACE) as agent:
        with pytest.raises(ObservationError, match=r"^observation\['on'\]\[1\] is 2"):
            agent.request_for_action(None, WRONG)
        assert agent.status().open == 0
