"""Decisions that come too late are the fallback's: counted, recorded as such, only where asked."""

from typing import Any

import numpy as np
import pytest

from rl4sys_stream import ConfigError, StreamAgent
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.format import FALLBACK_TOKEN
from rl4sys_stream.wire.trajectory import BehaviorRun
from tests.integration.agent.world import (
    ACTION_SPACE,
    OBS,
    OBSERVATION_SPACE,
    QUICK,
    World,
    weights,
)

MASK = [True, True, False, True]


class LeapingClock(SystemClock):
    """Time that the test can let pass at once."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return super().monotonic() + self.ahead_s


class SlowObservation:
    """Takes ten seconds to be read, as if the process had been paused meanwhile."""

    def __init__(self, clock: LeapingClock) -> None:
        self._clock = clock

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self._clock.ahead_s += 10.0
        return OBS


def agent_of(world: World, clock: LeapingClock, deadline_s: float | None) -> StreamAgent:
    """One whose fallback decides for 3."""
    return StreamAgent(
        None,
        world.client,
        world.url,
        OBSERVATION_SPACE,
        ACTION_SPACE,
        fallback=lambda obs, mask: 3,
        overrides=QUICK if deadline_s is None else QUICK | {"agent.deadline_s": deadline_s},
        environ={},
        clock=clock,
    )


def late_decisions(world: World, agent_id: str) -> int:
    """As the agent's heartbeat says."""
    said = world.heartbeat(agent_id)
    return said.late_decisions if said else 0


def test_a_decision_that_came_too_late_is_the_fallbacks(world: World):
    """Between others in one trajectory; status and heartbeat say how many. Evaluation waits."""
    clock = LeapingClock()
    slow: Any = SlowObservation(clock)
    with agent_of(world, clock, deadline_s=5.0) as agent:
        world.publish(1, weights(preferred=1))
        assert agent.wait_for_model(10)
        traj, chosen = None, []
        for obs in (OBS, slow, OBS):
            traj, action = agent.request_for_action(traj, obs, MASK)
            chosen.append((int(action), action.version, action.token))
            agent.add_to_trajectory(traj, action)
            action.update_reward(1.0)
        assert chosen == [(1, 1, "1:worker"), (3, 0, FALLBACK_TOKEN), (1, 1, "1:worker")]
        assert int(agent.evaluate(slow, MASK)) == 1
        assert traj is not None
        agent.mark_end_of_trajectory(traj)
        status = agent.status()
        assert (status.decisions, status.late_decisions, status.fallback_decisions) == (4, 1, 0)
        eventually(lambda: late_decisions(world, agent.agent_id) == 1)
        assert agent.flush()
    (sent,) = world.sent()
    assert sent.trajectory.behavior == (
        BehaviorRun(1, "1:worker", 1),
        BehaviorRun(0, FALLBACK_TOKEN, 1),
        BehaviorRun(1, "1:worker", 1),
    )


def test_without_a_deadline_a_decision_takes_what_it_takes(world: World):
    """The fallback is for the time before the first model alone."""
    clock = LeapingClock()
    slow: Any = SlowObservation(clock)
    with agent_of(world, clock, None) as agent:
        world.publish(1, weights(preferred=1))
        assert agent.wait_for_model(10)
        _, action = agent.request_for_action(None, slow, MASK)
        assert (int(action), action.version) == (1, 1)
        assert agent.status().late_decisions == 0


def test_before_the_first_model_nothing_is_late(world: World):
    """The fallback's own decisions are counted as such."""
    clock = LeapingClock()
    slow: Any = SlowObservation(clock)
    with agent_of(world, clock, deadline_s=5.0) as agent:
        assert int(agent.request_for_action(None, slow, MASK)[1]) == 3
        status = agent.status()
        assert (status.fallback_decisions, status.late_decisions) == (1, 0)


def test_a_deadline_without_a_fallback_is_refused(world: World):
    """Somebody has to decide then."""
    with pytest.raises(ConfigError, match="pass fallback=") as caught:
        world.agent(deadline_s=0.002)
    assert caught.value.path == "agent.deadline_s"
