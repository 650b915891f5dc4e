"""An application that embeds an agent: `python -m benchmarks.rig.application --folder F`.

It decides at a steady pace or at full speed, and writes files that survive its death: `ledger`
(one line for each `mark_end_of_trajectory` that returned), `decisions.RUN` and `ends.RUN` (pairs of
int64: monotonic nanoseconds of the beginning, nanoseconds that it took). `errors` holds a line for
each exception that a call raised. Each trajectory carries its line of the ledger in its
observations, so that whoever sees it can tell which one it is. SIGTERM ends it in good order.
"""

import argparse
import os
import signal
import threading
import time
import traceback
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rl4sys_stream import Box, Discrete, StreamAgent

OBS_DIM = 8
N_ACTIONS = 4
ID_SCALE = 1 << 20
"""Ids are below it; divided by it they are exact in float32, and small enough for a network."""
RUN_SHIFT = 18
"""Each run of the application has this many bits of ids of its own."""
FLUSH_DECISIONS = 256


class Samples:
    """Pairs of int64, on disk soon after they are added."""

    def __init__(self, path: Path, *, flush_every: int) -> None:
        self._pairs = array("q")
        self._longest = 2 * flush_every
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, begun_ns: int, took_ns: int) -> None:
        """Add one."""
        self._pairs.append(begun_ns)
        self._pairs.append(took_ns)
        if len(self._pairs) >= self._longest:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system, which outlives the process."""
        os.write(self._file, self._pairs.tobytes())
        del self._pairs[:]


class Application:
    """Decides until `stopping`."""

    def __init__(
        self, agent: StreamAgent, folder: Path, *, run: int, rate: float, timed: bool
    ) -> None:
        self.stopping = threading.Event()
        self._agent = agent
        self._period_ns = int(1e9 / rate) if rate else 0
        self._timed = timed
        self._next_id = run << RUN_SHIFT
        self._ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._decisions = Samples(folder / f"decisions.{run}", flush_every=FLUSH_DECISIONS)
        self._ends = Samples(folder / f"ends.{run}", flush_every=1)
        self._rng = np.random.default_rng(run)

    def play(self, episode_steps: int) -> None:
        """Episode after episode."""
        while not self.stopping.is_set():
            try:
                self._episode(episode_steps)
            except Exception:  # noqa: BLE001 - whatever a call raises is the result
                os.write(self._errors, traceback.format_exc().replace("\n", " | ").encode() + b"\n")
        self._decisions.flush()
        self._ends.flush()

    def _episode(self, steps: int) -> None:
        agent, clock = self._agent, time.monotonic_ns
        number, self._next_id = self._next_id, self._next_id + 1
        observations = self._rng.standard_normal((steps, OBS_DIM)).astype(np.float32)
        observations[:, 0] = number / ID_SCALE
        traj, due = None, clock()
        for obs in observations:
            begun = clock()
            traj, action = agent.request_for_action(traj, obs)
            agent.add_to_trajectory(traj, action)
            action.update_reward(1.0)
            if self._timed:
                self._decisions.add(begun, clock() - begun)
            if self._period_ns:
                # A late decision is not made up for: an application does not work in bursts.
                due = max(due + self._period_ns, clock())
                time.sleep(max(due - clock(), 0) / 1e9)
        begun = clock()
        agent.mark_end_of_trajectory(traj, action)
        took = clock() - begun
        # Only from here on the promise holds: what is in the ledger must not be lost.
        os.write(self._ledger, b"%d\n" % number)
        if self._timed:
            self._ends.add(begun, took)


def on_terminate(action: Callable[[], None]) -> None:
    """Call `action` at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: action())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", type=int, default=0, help="which run of it this is, from 0")
    parser.add_argument("--rate", type=float, default=0.0, help="decisions a second; 0: no pause")
    parser.add_argument("--episode-steps", type=int, default=100)
    parser.add_argument("--untimed", action="store_true")
    options = parser.parse_args()
    agent = StreamAgent(
        options.config, observation_space=Box((OBS_DIM,)), action_space=Discrete(N_ACTIONS)
    )
    application = Application(
        agent,
        options.folder,
        run=options.run,
        rate=options.rate,
        timed=not options.untimed,
    )
    on_terminate(application.stopping.set)
    application.play(options.episode_steps)
    agent.close(30)


if __name__ == "__main__":
    main()
