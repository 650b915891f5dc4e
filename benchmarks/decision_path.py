"""What a decision costs the application: `python -m benchmarks.decision_path [--json]`.

Times `request_for_action` + `add_to_trajectory` + `update_reward` together, call by call, with a
64×64 tanh actor, 8 inputs and 4 actions, under a real broker and a real worker that learns from
what is sent and publishes model after model.
Between decisions the "environment" spins for `--env-us`, as an application would do its own work.
Beside it, in the same process and at the same time: the bare numpy forward pass of the same net.
The target is p50 <= 20 us. Ends of trajectories are timed apart: they encode and queue.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rl4sys_stream import Box, Discrete, StreamAgent
from rl4sys_stream.testing import RedisServer

ROOT = Path(__file__).resolve().parent.parent
TARGET_P50_US = 20.0
EPISODE_STEPS = 200
SETTINGS = {
    "algorithm_parameters.n_steps": 1024,
    "algorithm_parameters.n_epochs": 4,
    "agent.poll_interval_s": 0.5,
}


def start_worker(url: str, folder: Path) -> subprocess.Popen[bytes]:
    """A worker that trains on what the agent sends."""
    password = url.split(":", 2)[2].split("@", 1)[0]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "rl4sys_stream", "worker", "--client", "bench"),
            *("--redis-url", url.replace(f":{password}@", ""), "--workers-dir", str(folder)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RL4SYS_STREAM_REDIS_PASSWORD": password,
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def percentiles(samples_ns: list[int]) -> dict[str, float]:
    """p50, p99 and the maximum, in microseconds."""
    p50, p99, top = np.percentile(np.array(samples_ns) / 1e3, [50, 99, 100])
    return {"p50_us": round(p50, 2), "p99_us": round(p99, 2), "max_us": round(top, 1)}


def spin(env_ns: int) -> None:
    """The application's own work."""
    until = time.perf_counter_ns() + env_ns
    while time.perf_counter_ns() < until:
        pass


def run(agent: StreamAgent, steps: int, env_ns: int) -> dict[str, dict[str, float]]:
    """Play `steps` steps; timings by name."""
    clock = time.perf_counter_ns
    observations = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    decisions, forwards, ends = [], [], []
    traj = None
    for index in range(steps):
        obs = observations[index % 1000]
        begun = clock()
        traj, action = agent.request_for_action(traj, obs)
        agent.add_to_trajectory(traj, action)
        action.update_reward(1.0)
        decisions.append(clock() - begun)
        spin(env_ns)
        forward = agent._slot.policy.network.forward  # noqa: SLF001 - the net that just decided
        begun = clock()
        forward(obs)
        forwards.append(clock() - begun)
        if index % EPISODE_STEPS == EPISODE_STEPS - 1:
            begun = clock()
            agent.mark_end_of_trajectory(traj, action)
            ends.append(clock() - begun)
    return {
        "decision": percentiles(decisions),
        "bare numpy forward": percentiles(forwards),
        "end of 200 steps": percentiles(ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--env-us", type=int, default=60, help="the application's work a step")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        RedisServer() as server,
        StreamAgent(
            None,
            "bench",
            server.url,
            Box((8,)),
            Discrete(4),
            overrides=SETTINGS,
            environ={},
        ) as agent,
    ):
        worker = start_worker(server.url, server.data_dir)
        try:
            if not agent.wait_for_model(60):
                sys.exit(f"no model within 60 s: is torch installed? {agent.status()}")
            run(agent, 2000, options.env_us * 1000)
            before = agent.version
            timings = run(agent, options.steps, options.env_us * 1000)
            agent.flush(10)
            status = agent.status()
        finally:
            worker.terminate()
            worker.wait(20)
    versions = status.version - before
    if options.json:
        machine = {"python": platform.python_version(), "numpy": np.__version__}
        print(json.dumps({"machine": machine, "versions": versions, "timings": timings}))
        return
    for name, row in timings.items():
        print(
            f"{name:20} p50 {row['p50_us']:8.2f} us  p99 {row['p99_us']:8.2f} us  "
            f"max {row['max_us']:9.1f} us"
        )
    print(f"{options.steps} steps, {versions} model versions taken over meanwhile,", end=" ")
    print(f"{status.issued} trajectories sent, {status.dropped} dropped")
    verdict = "reached" if timings["decision"]["p50_us"] <= TARGET_P50_US else "MISSED"
    print(f"target p50 <= {TARGET_P50_US:g} us: {verdict}")


if __name__ == "__main__":
    main()
