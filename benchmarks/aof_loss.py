"""What a power loss at the broker costs under AOF everysec: `python -m benchmarks.aof_loss`.

With `appendfsync everysec` the broker answers an append before it is on the disk. If only the
server dies, the operating system still writes it; if the host dies, up to a second is gone. That is
emulated so: a real agent sends at a steady pace to a real server; the length of the append-only
file is noted every few milliseconds; at a random moment the server is stopped, killed with kill -9,
and the file is cut to the length that it had X seconds before, X uniform between 0 and 1: the age
of the last flush. The cut may tear a command; the server drops the torn end when it loads. Not
emulated: flushes that take longer than a second (the server then allows two), a disk that lies
about them, blocks that reach the disk out of order.

Two agents, each in runs of its own: one that forgets an entry when it is answered (`retain_s` of a
millisecond, as "send and forget" does), one with the default of 3 s, which offers again. Counted by
number: entries that the broker had answered, and that are not in the stream when the agent has
connected again and is done. No worker runs: it would only take entries out of the stream. Writes
docs/benchmarks/aof_loss.json, and exits with 1 if the agent that retains has lost any.
"""

import argparse
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rl4sys_stream import Box, Discrete, StreamAgent
from rl4sys_stream.agent.status import AgentStatus
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.testing import RedisServer, eventually
from rl4sys_stream.wire.trajectory import decode_address

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "aof_loss.json"
CLIENT = "power"
STEPS = 20
OBS_DIM = 8
NOTE_S = 0.002
RETENTION = {"off": 0.001, "3 s": 3.0}


@dataclass(frozen=True)
class Outcome:
    """One power loss.

    Attributes:
        acked: Entries that the broker had answered when it died.
        cut_s: Age of the last flush, as drawn.
        cut_bytes: What was cut from the file.
        at_risk: Acked entries that were not in the stream after the restart, before the agent came.
        lost: Those that are not in it after the agent has offered again what it retained.
    """

    acked: int
    cut_s: float
    cut_bytes: int
    at_risk: int
    lost: int


class FileLengths:
    """Notes the length of a growing file, to tell later what it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._notes.append((time.monotonic(), self._path.stat().st_size))
            self._stop.wait(NOTE_S)

    def stop(self) -> None:
        """Note no more."""
        self._stop.set()
        self._thread.join()

    def at(self, moment: float) -> int:
        """The last length noted at or before `moment`."""
        return max((length for when, length in self._notes if when <= moment), default=0)


def play_one(agent: StreamAgent) -> None:
    """One trajectory."""
    traj = None
    for obs in np.zeros((STEPS, OBS_DIM), np.float32):
        traj, action = agent.request_for_action(traj, obs)
        agent.add_to_trajectory(traj, action)
        action.update_reward(0.0)
    agent.mark_end_of_trajectory(traj, action)


def play(agent: StreamAgent, stop: threading.Event, rate: float) -> None:
    """End `rate` trajectories a second."""
    while not stop.wait(1 / rate):
        play_one(agent)


def settled_status(agent: StreamAgent) -> AgentStatus:
    """The agent's books when no answer can arrive any more and none is being read."""
    found = [agent.status()]

    def quiet() -> bool:
        found.append(agent.status())
        return found[-1].unanswered == found[-2].unanswered > 0

    eventually(quiet, 10, "the agent waits for an answer")
    return found[-1]


def numbers(broker: Broker, agent_id: str) -> set[int]:
    """What is in the stream of this agent."""
    found = (
        decode_address(e.fields) for e in TrajectoryStream(broker, ClientKeys(CLIENT)).addresses()
    )
    return {address.seq for address in found if address.agent_id == agent_id}


@contextmanager
def playing(agent: StreamAgent, rate: float) -> Iterator[None]:
    """Meanwhile the application plays."""
    stop = threading.Event()
    thread = threading.Thread(target=play, args=(agent, stop, rate))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def lose_power(server: RedisServer, lengths: FileLengths, file: Path, cut_s: float) -> int:
    """Kill the server, and take back what was written in the last `cut_s`; bytes cut."""
    died = time.monotonic()
    server.kill()
    lengths.stop()
    kept = lengths.at(died - cut_s)
    cut = file.stat().st_size - kept
    with file.open("r+b") as opened:
        opened.truncate(kept)
    return cut


def one_loss(retain_s: float, rate: float, rng: random.Random) -> Outcome:
    """A server, an agent, a power loss, and what is left of it."""
    settings = {"agent.retain_s": retain_s, "agent.heartbeat_s": 0.5}
    with (
        RedisServer(aof="everysec") as server,
        Broker(BrokerAddress.from_url(server.url), name="aof-loss") as broker,
        StreamAgent(
            None, CLIENT, server.url, Box((OBS_DIM,)), Discrete(4), overrides=settings, environ={}
        ) as agent,
    ):
        (file,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
        lengths = FileLengths(file)
        pause = threading.Event()
        with playing(agent, rate):
            pause.wait(2.0 + rng.random())
            cut_s = rng.random()
            server.pause()
            status = settled_status(agent)
            cut_bytes = lose_power(server, lengths, file, cut_s)
        acked = set(range(1, status.issued - status.unanswered + 1))
        server.restart()
        at_risk = len(acked - numbers(broker, agent.agent_id))
        # Everything may have been answered before the end, and then a flush would wait for
        # nothing. A further number goes out last, behind all that is offered again.
        play_one(agent)
        eventually(lambda: agent.flush(1), 20, "the agent is done")
        lost = len(acked - numbers(broker, agent.agent_id))
    return Outcome(len(acked), round(cut_s, 3), cut_bytes, at_risk, lost)


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Totals, and the worst single loss."""
    acked = sum(one.acked for one in outcomes)
    lost = sum(one.lost for one in outcomes)
    return {
        "power_losses": len(outcomes),
        "acked": acked,
        "lost": lost,
        "lost_share": round(lost / acked, 4),
        "losses_with_loss": sum(1 for one in outcomes if one.lost),
        "gone_before_the_agent_came": sum(one.at_risk for one in outcomes),
        "most_lost_at_once": max(one.lost for one in outcomes),
        "mean_lost_at_once": round(lost / len(outcomes), 1),
        "mean_cut_s": round(sum(one.cut_s for one in outcomes) / len(outcomes), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--losses", type=int, default=20, help="power losses for each agent")
    parser.add_argument("--rate", type=float, default=200, help="trajectories a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.getLogger("rl4sys_stream").setLevel(logging.ERROR)  # outages are on purpose here
    found = {}
    for name, retain_s in RETENTION.items():
        # The same moments and cuts for both.
        rng = random.Random(options.seed)
        outcomes = [one_loss(retain_s, options.rate, rng) for _ in range(options.losses)]
        found[f"retain_s {name}"] = summary(outcomes)
        print(f"retain_s {name}: {found[f'retain_s {name}']}", flush=True)
    result = {"rate_per_s": options.rate, "steps": STEPS, "results": found}
    options.results.write_text(json.dumps(result, indent=2) + "\n")
    if found["retain_s 3 s"]["lost"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
