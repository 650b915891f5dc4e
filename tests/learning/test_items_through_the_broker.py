"""PPO learns to choose among a changing number of items, through a real broker and worker."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.testing.environments import QueuePick
from tests.learning.test_learning_through_the_broker import definition_file, worker_process

pytestmark = pytest.mark.learning

DEADLINE_S = 60.0
TASK = QueuePick()
NEAR_OPTIMUM = 0.98
"""Picking at random scores 0.5, by the oldest or by the smallest job about 0.75."""
NEAR_BY_RULE = 0.9
TRAINED_VERSION = 4


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_which_job_is_best_wherever_it_stands(
    redis_url: str, client_name: str, tmp_path: Path, seed: int
) -> None:
    """Greedy picks come near the optimum, for each of three seeds."""
    rng = random.Random(seed)
    definition = item_definition(tmp_path, client_name, seed)
    with (
        item_agent(redis_url, definition) as agent,
        worker_process(redis_url, definition, client_name),
    ):
        assert agent.wait_for_model(timeout_s=60)
        deadline = time.monotonic() + DEADLINE_S
        score = 0.0
        while score < NEAR_OPTIMUM and time.monotonic() < deadline:
            for _ in range(16):
                play(agent, rng)
            score = greedy_score(agent, rng)
    assert score >= NEAR_OPTIMUM


def test_a_good_prior_begins_near_the_optimum_and_training_keeps_it(
    redis_url: str, client_name: str, tmp_path: Path
) -> None:
    """By chance around the rule before the first model, by the model around it from then on."""
    rng, sharpness = random.Random(1), 20.0
    definition = item_definition(tmp_path, client_name, seed=1)
    with item_agent(redis_url, definition) as agent:
        first = [play(agent, rng, sharpness) for _ in range(8)]
        assert agent.version == 0
        assert sum(first) / len(first) > NEAR_BY_RULE
        with worker_process(redis_url, definition, client_name):
            assert agent.wait_for_model(timeout_s=60)
            deadline = time.monotonic() + DEADLINE_S
            while agent.version < TRAINED_VERSION and time.monotonic() < deadline:
                assert play(agent, rng, sharpness) > 0.5
            assert agent.version >= TRAINED_VERSION
            assert greedy_score(agent, rng, sharpness) >= NEAR_OPTIMUM


def item_definition(folder: Path, client: str, seed: int) -> Path:
    """A definition with quick parameters and a network for each item."""
    definition = definition_file(folder, client, seed, "PPO")
    content = json.loads(definition.read_text())
    content["network_architecture"] = {"hidden_sizes": [16], "per_item": True}
    definition.write_text(json.dumps(content))
    return definition


@contextmanager
def item_agent(redis_url: str, definition: Path) -> Iterator[StreamAgent]:
    """An agent that picks jobs."""
    with StreamAgent(
        conf_path=definition,
        redis_url=redis_url,
        observation_space=TASK.observation_space,
        action_space=TASK.action_space,
    ) as agent:
        yield agent


def play(agent: StreamAgent, rng: random.Random, sharpness: float = 0.0) -> float:
    """One recorded episode; its mean reward."""
    trajectory, total = None, 0.0
    for queue, mask in TASK.queues(rng):
        prior = sharpness * TASK.merit(queue) if sharpness else None
        trajectory, action = agent.request_for_action(trajectory, queue, mask, prior)
        reward = TASK.reward(queue, mask, int(action))
        total += reward
        agent.add_to_trajectory(trajectory, action)
        action.update_reward(reward)
    assert trajectory is not None
    agent.mark_end_of_trajectory(trajectory)
    return total / TASK.episode_steps


def greedy_score(agent: StreamAgent, rng: random.Random, sharpness: float = 0.0) -> float:
    """Mean reward of greedy picks, not recorded."""
    rewards = []
    for _ in range(16):
        for queue, mask in TASK.queues(rng):
            prior = sharpness * TASK.merit(queue) if sharpness else None
            rewards.append(TASK.reward(queue, mask, int(agent.evaluate(queue, mask, prior))))
    return sum(rewards) / len(rewards)
