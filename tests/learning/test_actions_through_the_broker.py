"""PPO learns several choices at once, and real vectors, through a real broker, worker and agent."""

import json
import random
import time
from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.testing.environments import IdentityBox, IdentityMultiDiscrete
from tests.learning.test_learning_through_the_broker import definition_file, worker_process

pytestmark = pytest.mark.learning

DEADLINE_S = 60.0
Task = IdentityMultiDiscrete | IdentityBox


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ppo_learns_several_choices_at_once(
    redis_url: str, client_name: str, tmp_path: Path, seed: int
) -> None:
    """Both choices of every greedy action are right, for each of three seeds."""
    definition = definition_file(tmp_path, client_name, seed, "PPO")
    score = learn(redis_url, client_name, definition, IdentityMultiDiscrete(), seed, enough=1.0)
    assert score == 1.0


@pytest.mark.parametrize("squash_output", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ppo_learns_points(
    redis_url: str, client_name: str, tmp_path: Path, seed: int, squash_output: bool
) -> None:
    """The mean action is within a tenth of the point, by the root of the mean square.

    Knowing nothing, it would be 0.58 away. Clipped to the bounds, or through tanh onto them.
    """
    definition = definition_file(tmp_path, client_name, seed, "PPO")
    text = json.loads(definition.read_text())
    text["algorithm_parameters"]["log_std_init"] = -1.0
    text["network_architecture"]["squash_output"] = squash_output
    definition.write_text(json.dumps(text))
    score = learn(redis_url, client_name, definition, IdentityBox(), seed, enough=-0.01)
    assert score >= -0.01


def learn(
    redis_url: str, client: str, definition: Path, task: Task, seed: int, *, enough: float
) -> float:
    """Play until greedy actions score `enough` or the deadline; their score."""
    rng = random.Random(seed)
    with (
        StreamAgent(
            conf_path=definition,
            redis_url=redis_url,
            observation_space=task.observation_space,
            action_space=task.action_space,
        ) as agent,
        worker_process(redis_url, definition, client),
    ):
        assert agent.wait_for_model(timeout_s=60)
        deadline = time.monotonic() + DEADLINE_S
        score = -float("inf")
        while score < enough and time.monotonic() < deadline:
            for _ in range(16):
                play(agent, task, rng)
            score = greedy_score(agent, task, rng)
    return score


def play(agent: StreamAgent, task: Task, rng: random.Random) -> None:
    """One recorded episode."""
    trajectory = None
    for observation in task.observations(rng):
        trajectory, action = agent.request_for_action(trajectory, observation)
        agent.add_to_trajectory(trajectory, action)
        action.update_reward(task.reward(observation, action.action))
    assert trajectory is not None
    agent.mark_end_of_trajectory(trajectory)


def greedy_score(agent: StreamAgent, task: Task, rng: random.Random) -> float:
    """Mean reward of greedy actions, not recorded."""
    rewards = [
        task.reward(observation, agent.evaluate(observation).action)
        for _ in range(8)
        for observation in task.observations(rng)
    ]
    return sum(rewards) / len(rewards)
