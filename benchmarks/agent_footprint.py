"""What embedding an agent costs: `python -m benchmarks.agent_footprint [--json]`.

Each sample is a fresh interpreter: the time of `import rl4sys_stream` (bytecode cached, as after
any first run), and the resident memory of a process whose agent is connected to a real broker, has
played 20 000 steps and sent them. Beside them what numpy and redis-py alone take, since the agent
stands on both. Targets: import <= 0.3 s, memory <= 60 MB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rl4sys_stream.testing import RedisServer

ROOT = Path(__file__).resolve().parent.parent
TARGET_IMPORT_S = 0.3
TARGET_RSS_MB = 60.0

TIME_IMPORT = """
import time
begun = time.perf_counter()
import {modules}
print(time.perf_counter() - begun)
"""

RUN_AGENT = """
import resource, sys
from rl4sys_stream import Box, Discrete, StreamAgent
agent = StreamAgent(None, "footprint", sys.argv[1], Box((8,)), Discrete(4), environ={})
for episode in range(100):
    traj = None
    for step in range(200):
        traj, action = agent.request_for_action(traj, [0.0] * 8)
        agent.add_to_trajectory(traj, action)
        action.update_reward(1.0)
    agent.mark_end_of_trajectory(traj, action)
delivered = agent.flush(20)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
heavy = {"torch", "gymnasium"} & set(sys.modules)
agent.close()
print(peak, int(delivered), len(heavy))
"""


def interpret(code: str, cache: str, *arguments: str) -> list[float]:
    """Run `code` in a fresh interpreter; the numbers that it prints."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": cache}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environ,
    )
    return [float(number) for number in done.stdout.split()]


def time_import(modules: str, cache: str, samples: int) -> dict[str, float]:
    """Median and best time of importing `modules`, in seconds."""
    code = TIME_IMPORT.format(modules=modules)
    interpret(code, cache)  # fills the bytecode cache
    times = [interpret(code, cache)[0] for _ in range(samples)]
    return {"median_s": round(statistics.median(times), 3), "best_s": round(min(times), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, RedisServer() as server:
        imports = {
            modules: time_import(modules, cache, options.samples)
            for modules in ("rl4sys_stream", "numpy", "redis", "numpy, redis")
        }
        peak, delivered, heavy = interpret(RUN_AGENT, cache, server.url)
    rss_mb = round(peak / 1e6, 1)
    if not delivered or heavy:
        sys.exit("the agent did not deliver, or loaded the training stack")
    if options.json:
        print(json.dumps({"imports": imports, "peak_rss_mb": rss_mb}))
        return
    for modules, row in imports.items():
        print(f"import {modules:14} median {row['median_s']:.3f} s  best {row['best_s']:.3f} s")
    print(f"peak memory of a running agent: {rss_mb:.1f} MB")
    for name, value, target in (
        ("import (median)", imports["rl4sys_stream"]["median_s"], TARGET_IMPORT_S),
        ("memory", rss_mb, TARGET_RSS_MB),
    ):
        print(f"target {name} <= {target:g}: {'reached' if value <= target else 'MISSED'}")


if __name__ == "__main__":
    main()
