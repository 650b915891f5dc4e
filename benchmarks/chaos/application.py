"""An application under test: some agents that play short episodes and keep a ledger.

    python -m benchmarks.chaos.application SPEC

SPEC is a JSON file (see `ApplicationSpec`). It plays until its standard input says `rest`: then it
sets the rewards that are missing, flushes, says `resting`, and closes its agents at `close` or at
the end of the input.
"""

import random
import sys
import threading
import time
from collections import deque
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.chaos.identity import OBS_DIM, Identity
from benchmarks.chaos.ledger import LedgerWriter
from rl4sys_stream import StreamAgent
from rl4sys_stream.agent.handles import ActionHandle
from rl4sys_stream.telemetry import configure_logging

__all__ = ["AgentSpec", "ApplicationSpec"]

LATE_SHARE = 0.1
TRUNCATED_SHARE = 0.2
LONGEST_DELAY_S = 1.0
LONGEST_EPISODE = 10
FLUSH_S = 90.0
CLOSE_S = 20.0


class AgentSpec(msgspec.Struct, frozen=True):
    """One agent: its client, that client's configuration, and a folder for its spool or None."""

    client: str
    config: str
    spool: str | None


class ApplicationSpec(msgspec.Struct, frozen=True):
    """What an application process is told.

    Attributes:
        number: Of the application.
        incarnation: How often it was started before.
        ledger: File to write.
        agents: To embed.
        episodes_per_s: Of each agent.
    """

    number: int
    incarnation: int
    ledger: str
    agents: list[AgentSpec]
    episodes_per_s: float


class Player:
    """Plays episodes on one agent."""

    def __init__(self, first: Identity, spec: AgentSpec, ledger: LedgerWriter) -> None:
        """Make the agent; `first` has ordinal 0."""
        overrides = {} if spec.spool is None else {"agent.spool_dir": spec.spool}
        self.agent = StreamAgent(spec.config, overrides=overrides)
        self._first = first
        self._ordinal = 0
        self._ledger = ledger
        self._random = random.Random(first.number())
        self._late: deque[tuple[float, Identity, ActionHandle]] = deque()
        ledger.agent(first, self.agent.agent_id, spec.client, spooled=spec.spool is not None)

    def play(self) -> None:
        """One episode, written down when its end is marked."""
        self._ordinal += 1
        identity = Identity(
            self._first.application, self._first.incarnation, self._first.agent, self._ordinal
        )
        late = self._random.random() < LATE_SHARE
        length = self._random.randint(2, LONGEST_EPISODE)
        obs, traj, action = identity.observation(), None, None
        for step in range(length):
            traj, action = self.agent.request_for_action(traj, obs)
            self.agent.add_to_trajectory(traj, action)
            if not late or step < length - 1:
                action.update_reward(self._random.random())
            obs = np.full(OBS_DIM, self._random.random(), np.float32)
        assert traj is not None
        assert action is not None
        truncated = self._random.random() < TRUNCATED_SHARE
        self.agent.mark_end_of_trajectory(traj, action, truncated, final_obs=obs)
        self._ledger.ended(identity, late=late)
        if late:
            due = time.monotonic() + LONGEST_DELAY_S * self._random.random()
            self._late.append((due, identity, action))

    def reward(self, *, everything: bool = False) -> None:
        """Set the late rewards that are due."""
        now = time.monotonic()
        while self._late and (everything or self._late[0][0] <= now):
            _, identity, action = self._late.popleft()
            action.update_reward(1.0)
            self._ledger.rewarded(identity)


def main() -> None:
    """Play, rest, close."""
    configure_logging()
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ApplicationSpec)
    resting, closing = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(resting, closing), daemon=True).start()
    ledger = LedgerWriter(Path(spec.ledger))
    players = [
        Player(Identity(spec.number, spec.incarnation, index, 0), agent, ledger)
        for index, agent in enumerate(spec.agents)
    ]
    while not resting.is_set():
        begun = time.monotonic()
        for player in players:
            player.play()
            player.reward()
        resting.wait(max(begun + 1 / spec.episodes_per_s - time.monotonic(), 0.0))
    for player in players:
        player.reward(everything=True)
    for player in players:
        player.agent.flush(FLUSH_S)
    print("resting", flush=True)
    closing.wait()
    for player in players:
        player.agent.close(CLOSE_S)


def _listen(resting: threading.Event, closing: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "rest":
            resting.set()
        else:
            break
    resting.set()
    closing.set()


if __name__ == "__main__":
    main()
