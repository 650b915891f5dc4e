"""An application under test: some agents that play short episodes and keep a ledger.

    python -m benchmarks.chaos.application SPEC

SPEC is a JSON file (see `ApplicationSpec`). It says `playing` when it can be struck, and plays
until its standard input says `rest`: then it sets the rewards that are missing, flushes, and says
`resting`. At `more` it plays enough to fill one rollout and rests again; at `close` or at the end
of the input it closes its agents, as it does at SIGTERM. At SIGUSR1 it forks a child that plays on
for a moment (`forked`); at SIGUSR2 it plays something that spoils any update (`poisoned`).
"""

import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from types import FrameType

import msgspec
import numpy as np

from benchmarks.chaos.identity import OBS_DIM, Identity
from benchmarks.chaos.ledger import LedgerWriter
from rl4sys_stream import StreamAgent
from rl4sys_stream.agent.handles import ActionHandle
from rl4sys_stream.telemetry import configure_logging

__all__ = ["FORKED", "SHORTEST_EPISODE", "AgentSpec", "ApplicationSpec"]

LATE_SHARE = 0.1
TRUNCATED_SHARE = 0.2
LONGEST_DELAY_S = 1.0
SHORTEST_EPISODE, LONGEST_EPISODE = 2, 10
FLUSH_S = 45.0
CLOSE_S = 20.0
CHILD_S = 1.5
POISON = 3e38
"""A reward that float32 holds, and whose square it does not."""
FORKED = 1000
"""What each fork adds to the application's number, so that the child's names are its own."""


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
        more: Episodes of each agent that fill a rollout.
    """

    number: int
    incarnation: int
    ledger: str
    agents: list[AgentSpec]
    episodes_per_s: float
    more: int


class Player:
    """Plays episodes on one agent."""

    def __init__(self, first: Identity, spec: AgentSpec, ledger: LedgerWriter) -> None:
        """Make the agent; `first` has ordinal 0."""
        overrides = {} if spec.spool is None else {"agent.spool_dir": spec.spool}
        self.agent = StreamAgent(spec.config, overrides=overrides)
        self._spec = spec
        self.begin(first, ledger)

    def begin(self, first: Identity, ledger: LedgerWriter) -> None:
        """Be this one from now on; in a forked child, whose parent sets the late rewards."""
        self._first = first
        self._ordinal = 0
        self._ledger = ledger
        self._random = random.Random(first.number())
        self._late: deque[tuple[float, Identity, ActionHandle]] = deque()
        spooled = self._spec.spool is not None
        ledger.agent(first, self.agent.agent_id, self._spec.client, spooled=spooled)

    def play(self, *, poison: bool = False) -> None:
        """One episode, written down when its end is marked."""
        self._ordinal += 1
        identity = Identity(
            self._first.application, self._first.incarnation, self._first.agent, self._ordinal
        )
        if poison:
            self._ledger.poison(identity)
        late = not poison and self._random.random() < LATE_SHARE
        length = self._random.randint(SHORTEST_EPISODE, LONGEST_EPISODE)
        obs, traj, action = identity.observation(), None, None
        for step in range(length):
            traj, action = self.agent.request_for_action(traj, obs)
            self.agent.add_to_trajectory(traj, action)
            if not late or step < length - 1:
                action.update_reward(POISON if poison else self._random.random())
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


class _Wishes:
    """What signals ask for. Their handlers only set flags, for they interrupt whatever goes on."""

    def __init__(self) -> None:
        self.leave = self.fork = self.poison = False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.leave |= number == signal.SIGTERM
        self.fork |= number == signal.SIGUSR1
        self.poison |= number == signal.SIGUSR2


class Application:
    """All players of one process."""

    def __init__(self, spec: ApplicationSpec) -> None:
        """Make the agents."""
        self._spec = spec
        self._forks = 0
        self._wishes = _Wishes()
        ledger = LedgerWriter(Path(spec.ledger))
        self._players = [
            Player(self._identity(index), agent, ledger) for index, agent in enumerate(spec.agents)
        ]

    def _identity(self, index: int) -> Identity:
        number = self._spec.number + FORKED * self._forks
        return Identity(number, self._spec.incarnation, index, 0)

    def run(self, words: "queue.SimpleQueue[str]") -> None:
        """Play, and do what the harness says."""
        _say("playing")
        while words.empty() and not self._wishes.leave:
            self._play_in_time()
            if self._wishes.fork:
                self._wishes.fork = False
                self._fork()
            if self._wishes.poison:
                self._wishes.poison = False
                self._players[0].play(poison=True)
                _say("poisoned")
        word = "leave" if self._wishes.leave else words.get()
        while word in {"rest", "more"}:
            for _ in range(self._spec.more if word == "more" else 0):
                for player in self._players:
                    player.play()
            self._flush()
            _say("resting")
            word = words.get()
        self._close()

    def _play_in_time(self) -> None:
        begun = time.monotonic()
        for player in self._players:
            player.play()
            player.reward()
        time.sleep(max(begun + 1 / self._spec.episodes_per_s - time.monotonic(), 0.0))

    def _flush(self) -> None:
        for player in self._players:
            player.reward(everything=True)
        for player in self._players:
            player.agent.flush(FLUSH_S)

    def _close(self) -> None:
        for player in self._players:
            player.reward(everything=True)
        for player in self._players:
            player.agent.close(CLOSE_S)

    def _fork(self) -> None:
        self._forks += 1
        if os.fork():
            _say("forked")
            return
        code = 1
        try:
            self._be_a_child()
            code = 0
        except BaseException:  # noqa: BLE001 -- a child must not run into its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)

    def _be_a_child(self) -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)  # the harness waits for the end of the parent's output
        path = Path(self._spec.ledger)
        ledger = LedgerWriter(path.with_name(f"{path.stem}-{self._forks}.ledger"))
        for index, player in enumerate(self._players):
            player.begin(self._identity(index), ledger)
        end = time.monotonic() + CHILD_S
        while time.monotonic() < end:
            self._play_in_time()
        self._close()


def main() -> None:
    """Play, rest, close."""
    configure_logging()
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ApplicationSpec)
    words: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(words,), daemon=True).start()
    Application(spec).run(words)


def _listen(words: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        words.put(line.strip())
    words.put("close")


def _say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    main()
