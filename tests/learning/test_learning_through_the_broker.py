"""PPO and DQN reach a known optimum through a real broker, a worker process and a real agent."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.testing.environments import IdentityTask, MaskedBandit

pytestmark = pytest.mark.learning

DEADLINE_S = 60.0
PARAMETERS: dict[str, dict[str, object]] = {
    "PPO": {
        "learning_rate": 0.005,
        "n_steps": 256,
        "batch_size": 64,
        "n_epochs": 8,
        "gamma": 0.5,
        "ent_coef": 0.0,
    },
    "DQN": {
        "learning_rate": 0.005,
        "total_timesteps": 4000,
        "buffer_size": 2000,
        "batch_size": 32,
        "learning_starts": 64,
        "train_freq": 2,
        "target_update_interval": 64,
        "gamma": 0.5,
        "exploration_fraction": 0.5,
    },
}


@contextmanager
def worker_process(redis_url: str, definition: Path, client: str) -> Iterator[None]:
    """The client's worker, as a user starts it."""
    command = [sys.executable, "-m", "rl4sys_stream", "worker", "--client", client]
    process = subprocess.Popen(
        [*command, "--config", str(definition)],
        env={**os.environ, "RL4SYS_STREAM_REDIS_URL": redis_url, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield
        assert process.poll() is None, "the worker ended while it was needed"
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def definition_file(folder: Path, client: str, seed: int, algorithm: str = "PPO") -> Path:
    """A definition with quick parameters."""
    path = folder / f"{client}.json"
    path.write_text(
        json.dumps(
            {
                "client_id": client,
                "algorithm": algorithm,
                "algorithm_parameters": {**PARAMETERS[algorithm], "seed": seed},
                "network_architecture": {"hidden_sizes": [32], "activation": "tanh"},
                # A simulation can wait: it stays close to the learner, so nothing gets too old.
                "agent": {
                    "drop_policy": "block",
                    "block_timeout_s": 20,
                    "high_water_entries": 16,
                    "queue_entries": 16,
                    "seed": seed,
                },
            }
        )
    )
    return path


@pytest.mark.parametrize("algorithm", PARAMETERS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_the_identity_task(
    redis_url: str, client_name: str, tmp_path: Path, seed: int, algorithm: str
) -> None:
    """Every greedy action is right within the deadline, for each of three seeds."""
    task, rng = IdentityTask(), random.Random(seed)
    definition = definition_file(tmp_path, client_name, seed, algorithm)
    with (
        StreamAgent(
            conf_path=definition,
            redis_url=redis_url,
            observation_space=task.observation_space,
            action_space=task.action_space,
        ) as agent,
        worker_process(redis_url, definition, client_name),
    ):
        assert agent.wait_for_model(timeout_s=60)
        deadline = time.monotonic() + DEADLINE_S
        score = 0.0
        while score < 1.0 and time.monotonic() < deadline:
            for _ in range(16):
                play_identity(agent, task, rng)
            score = identity_score(agent, task, rng)
    assert score == 1.0


def play_identity(agent: StreamAgent, task: IdentityTask, rng: random.Random) -> None:
    """One recorded episode."""
    trajectory = None
    for observation in task.observations(rng):
        trajectory, action = agent.request_for_action(trajectory, observation)
        agent.add_to_trajectory(trajectory, action)
        action.update_reward(task.reward(observation, int(action)))
    assert trajectory is not None
    agent.mark_end_of_trajectory(trajectory)


def identity_score(agent: StreamAgent, task: IdentityTask, rng: random.Random) -> float:
    """Mean reward of greedy actions, not recorded."""
    rewards = [
        task.reward(observation, int(agent.evaluate(observation)))
        for _ in range(4)
        for observation in task.observations(rng)
    ]
    return sum(rewards) / len(rewards)


@pytest.mark.parametrize("algorithm", PARAMETERS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_a_masked_bandit_with_late_rewards(
    redis_url: str, client_name: str, tmp_path: Path, seed: int, algorithm: str
) -> None:
    """One-step episodes, masks, and rewards set after the end: the best allowed arm each time."""
    task, rng = MaskedBandit(), random.Random(seed)
    definition = definition_file(tmp_path, client_name, seed, algorithm)
    text = json.loads(definition.read_text())
    text["agent"] |= {"high_water_entries": 512, "queue_entries": 512}
    definition.write_text(json.dumps(text))
    with (
        StreamAgent(
            conf_path=definition,
            redis_url=redis_url,
            observation_space=task.observation_space,
            action_space=task.action_space,
        ) as agent,
        worker_process(redis_url, definition, client_name),
    ):
        assert agent.wait_for_model(timeout_s=60)
        deadline = time.monotonic() + DEADLINE_S
        score = 0.0
        while score < 1.0 and time.monotonic() < deadline:
            late = []
            for _ in range(256):
                mask = task.mask(rng)
                trajectory, action = agent.request_for_action(None, mask, mask)
                agent.add_to_trajectory(trajectory, action)
                agent.mark_end_of_trajectory(trajectory, action)
                late.append(action)
            for action in late:
                action.update_reward(task.reward(int(action)))
            masks = [task.mask(rng) for _ in range(40)]
            right = [int(agent.evaluate(mask, mask)) == task.best(mask) for mask in masks]
            score = sum(right) / len(right)
    assert score == 1.0
