"""SAC reaches a known optimum through a real broker, a real worker process and a real agent."""

import json
from pathlib import Path

import pytest

from rl4sys_stream.testing.environments import IdentityBox
from tests.learning.test_actions_through_the_broker import learn

pytestmark = pytest.mark.learning

PARAMETERS = {
    "learning_rate": 0.003,
    "gamma": 0.0,
    "buffer_size": 10_000,
    "batch_size": 64,
    "learning_starts": 64,
    "train_freq": 2,
    "update_steps": 64,
    "ent_coef": "auto_0.1",
}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sac_learns_points(redis_url: str, client_name: str, tmp_path: Path, seed: int) -> None:
    """The mean action is within a tenth of the point, by the root of the mean square.

    Knowing nothing, it would be 0.58 away.
    """
    definition = tmp_path / f"{client_name}.json"
    definition.write_text(
        json.dumps(
            {
                "client_id": client_name,
                "algorithm": "SAC",
                "algorithm_parameters": {**PARAMETERS, "seed": seed},
                "network_architecture": {"hidden_sizes": [32], "activation": "relu"},
                # A simulation can wait: it stays close to the learner.
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
    score = learn(redis_url, client_name, definition, IdentityBox(), seed, enough=-0.01)
    assert score >= -0.01
