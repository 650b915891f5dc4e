"""Another distribution's algorithm, from its entry point to actions: a real worker and agent."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Head, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.testing import eventually
from tests.integration.worker.zygote import ROOT

pytestmark = pytest.mark.integration

THIRD_PARTY = Path(__file__).parents[2] / "third_party"
ARMS = (0.1, 0.9, 0.5)


@contextmanager
def worker(url: str, client: str, definition: Path) -> Iterator[None]:
    """A worker process that has the distribution installed, stopped at the end."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rl4sys_stream", "worker"),
            *("--client", client, "--config", str(definition)),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "RL4SYS_STREAM_REDIS_URL": url,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(THIRD_PARTY), str(ROOT))),
        },
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def play(agent: StreamAgent, episodes: int) -> None:
    """One-step episodes; the arms pay what they always pay."""
    for _ in range(episodes):
        trajectory, action = agent.request_for_action(None, [1.0])
        agent.add_to_trajectory(trajectory, action)
        action.update_reward(ARMS[int(action)])
        agent.mark_end_of_trajectory(trajectory)


def test_an_algorithm_that_is_installed_trains_like_our_own(
    redis_url: str,
    broker: Broker,
    client_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Registered, trained, published, acted by; and a second worker goes on from its checkpoint."""
    monkeypatch.syspath_prepend(THIRD_PARTY)
    definition = tmp_path / "bandit.json"
    definition.write_text(
        json.dumps(
            {
                "client_id": client_name,
                "algorithm": "Tally",
                "network_architecture": {"hidden_sizes": [4]},
                "algorithm_parameters": {"update_steps": 32, "sharpness": 20},
                "worker": {"lease_s": 0.7, "lease_renew_s": 0.2, "read_block_s": 0.05},
                "agent": {"seed": 1},
            }
        )
    )
    keys = ClientKeys(client_name)

    def head() -> Head:
        found = read_head(broker, keys)
        assert found is not None
        return found

    with StreamAgent(
        conf_path=definition,
        redis_url=redis_url,
        observation_space=Box((1,)),
        action_space=Discrete(3),
    ) as agent:
        with worker(redis_url, client_name, definition):
            assert agent.wait_for_model(timeout_s=60)
            play(agent, 64)
            eventually(lambda: head().counts.trained == 64, 30, "two updates are committed")
        with worker(redis_url, client_name, definition):
            play(agent, 32)
            eventually(lambda: head().counts.trained == 96, 30, "the second worker has trained")
            newest = head().version
            eventually(lambda: agent.status().version == newest, 10, "the agent has the newest")
        assert int(agent.evaluate([1.0])) == ARMS.index(max(ARMS))
