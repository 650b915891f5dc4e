"""The whole loop of the example, small: it learns through a broker, and is served elsewhere."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from examples.autoscale.application import (
    DEFINITION,
    LIVE_DEFINITION,
    Episode,
    greedy,
    make_agent,
)
from examples.autoscale.control import ControlLoop
from examples.autoscale.demand import DAY_STEPS, Demand, Span, make_demand
from examples.autoscale.evaluation import Score, compare, play
from examples.autoscale.pool import LivePool
from examples.autoscale.training import Plan, train
from rl4sys_stream import StreamAgent
from rl4sys_stream.exchange import ClientModels
from rl4sys_stream.testing import eventually

pytestmark = [pytest.mark.integration, pytest.mark.learning, pytest.mark.timeout(300)]

SEED = 3
PLAN = Plan(
    decisions=18_432, twins=16, days_between=4, windows=2, window_steps=DAY_STEPS, day_steps=48
)
"""24 rollouts of 768 steps."""
MORNING = Span(2 * DAY_STEPS + 90, 2 * DAY_STEPS + 102)
QUICK = {
    "learning_rate": 0.003,
    "gamma": 0.9,
    "n_epochs": 10,
    "total_timesteps": PLAN.decisions,
    "n_steps": 768,
    "batch_size": 128,
    "seed": SEED,
}


def small_demand() -> Demand:
    """Days that all look alike: a night, and a day with two peaks."""
    hours = np.arange(48) / 2.0
    day = 4.0 + 40.0 * np.clip(np.sin((hours - 6.0) / 15.0 * np.pi), 0.0, None) ** 0.5
    return make_demand(np.tile(day, 56), peak_rate=60.0)


def definition_file(folder: Path, shipped: Path, client: str, **changes: object) -> Path:
    """A shipped definition under the test's own client name, with other parameters."""
    definition = json.loads(shipped.read_text())
    definition["client_id"] = client
    definition["algorithm_parameters"] |= changes
    path = folder / f"{client}.json"
    path.write_text(json.dumps(definition))
    return path


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
        assert process.wait(timeout=60) == 0


def reached(agent: StreamAgent, demand: Demand) -> Score:
    """The newest policy on a held-out day, without chance."""
    days = demand.held_out.windows(DAY_STEPS)[:2]
    (score,) = compare({"agent": lambda: greedy(agent)}, demand, days, 99)
    return score


def test_an_agent_learns_on_twins_and_its_best_version_serves_a_live_pool(
    redis_url: str, client_name: str, tmp_path: Path
) -> None:
    """From chance to better than the HPA; then the same model, elsewhere."""
    demand = small_demand()
    definition = definition_file(tmp_path, DEFINITION, client_name, **QUICK)
    with (
        worker_process(redis_url, definition, client_name),
        make_agent(definition, redis_url, SEED) as agent,
    ):
        training = train(agent, demand, PLAN, SEED)
        status = agent.status()
    assert status.dropped == status.quarantined == status.fallback_decisions == 0
    assert training.decisions == status.steps == PLAN.decisions
    assert [point.version for point in training.curve] == [5, 9, 13, 17, 21, 25]
    best = training.best

    live = f"{client_name}_live"
    file = tmp_path / "model.npz"
    with ClientModels(client_name, redis_url) as models:
        models.export(best.version, file)
    with ClientModels(live, redis_url) as models:
        assert models.import_file(file, pinned=True) == 1
    served = definition_file(tmp_path, LIVE_DEFINITION, live)
    with make_agent(served, redis_url) as agent, LivePool(redis_url, SEED) as pool:
        assert agent.wait_for_model(60.0)
        score = reached(agent, demand)
        assert agent.status().version == 1
        outcomes = play(ControlLoop(pool, demand), MORNING, greedy(agent))
    assert sum(outcome.reading.taken for outcome in outcomes) > 0
    # Chance costs 5.1, the HPA 0.83, ten replicas at any time 0.6.
    assert score.objective > -0.83
    assert score.late < 0.01


def test_training_on_a_live_pool_goes_on_when_a_replica_is_killed(
    redis_url: str, client_name: str, tmp_path: Path
) -> None:
    """The death is counted, the agent sees fewer replicas, and its steps are trained on."""
    changes = {"n_steps": 12, "batch_size": 12, "seed": SEED}
    definition = definition_file(tmp_path, LIVE_DEFINITION, client_name, **changes)
    demand = small_demand()
    with (
        worker_process(redis_url, definition, client_name),
        make_agent(definition, redis_url, SEED) as agent,
        LivePool(redis_url, SEED) as pool,
    ):
        assert agent.wait_for_model(60.0)
        loop = ControlLoop(pool, demand)
        episode = Episode(agent, loop, MORNING)
        outcomes = [episode.step()]
        os.kill(pool.pids[0], signal.SIGKILL)
        while not loop.over:
            outcomes.append(episode.step())
        eventually(lambda: agent.version >= 2, timeout_s=30.0, message="an update")
    assert sum(outcome.reading.died for outcome in outcomes) == 1
    assert agent.status().steps == len(outcomes) == 12
