"""What the agent's two threads, and the listener's, know of the broker and tell each other.

Plain attributes, each written by one thread and read by the others, which is all the
synchronisation they need.
"""

import random
from typing import Final, Protocol

from rl4sys_stream.agent.settlement import SettlementNews
from rl4sys_stream.broker.control import FOLLOW

__all__ = ["AdoptedSession", "Backoff", "SenderSession", "Session"]

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0


class SenderSession(Protocol):
    """What a sender reads of the broker, and what it says of itself; see `Session`."""

    floor: int
    resent: int
    last_error: str
    sender_state: str
    server_changes: int

    @property
    def registered(self) -> bool:
        """See `Session`."""
        ...

    @property
    def reoffers(self) -> int:
        """See `Session`."""
        ...

    @property
    def retained(self) -> int:
        """See `Session`."""
        ...


class Session:
    """The agent's standing with the broker.

    Attributes:
        registered: The registry has accepted the client's spec: trajectories may be sent.
        refused: Why it has not, "" if it did not refuse. Written by the refresher, like the next
            six.
        overruled: Stated parameters that do not count, because the client trains with others.
        lineage: Training history that the registry names, "" before it was asked.
        retained: Entries that stay in the stream after their settlement, by the head.
        news: What a worker has settled of this agent's trajectories, for those who wait for it.
        reoffers: Raised by one when everything that the sender retains is to be offered again.
        directive: What this agent is to act by.
        refresher_state: "connecting", "up" or "down".
        sender_state: "connecting", "up", "down", "paused" (high water), "refusing" (entries are
            refused, or the broker is a replica), "spool_failing" (numbers cannot be written
            down) or "closed". Written by the sender, like the next three.
        floor: Lowest number that is still offered.
        resent: Entries offered again after the broker had answered them.
        server_changes: Times that another server answered the sender, or the same in another role.
        last_error: What went wrong last, in any of the threads, "".
    """

    __slots__ = (
        "directive",
        "floor",
        "last_error",
        "lineage",
        "news",
        "overruled",
        "refresher_state",
        "refused",
        "registered",
        "reoffers",
        "resent",
        "retained",
        "sender_state",
        "server_changes",
    )

    def __init__(self) -> None:
        self.registered = False
        self.refused = ""
        self.overruled: tuple[str, ...] = ()
        self.lineage = ""
        self.retained = 0
        self.news = SettlementNews()
        self.reoffers = 0
        self.directive = FOLLOW
        self.refresher_state = "connecting"
        self.sender_state = "connecting"
        self.floor = 1
        self.resent = 0
        self.server_changes = 0
        self.last_error = ""

    @property
    def state(self) -> str:
        """Both threads' view in one word; see `AgentStatus.broker`."""
        if self.refused:
            return "held"
        if self.registered:
            return self.sender_state
        return "down" if self.refresher_state == "down" else "connecting"


class AdoptedSession:
    """The standing of a dead agent whose books a living one closes: that of the living one.

    Args:
        living: The living agent's.
    """

    __slots__ = ("_living", "floor", "last_error", "resent", "sender_state", "server_changes")

    def __init__(self, living: Session) -> None:
        self._living = living
        self.floor = 1
        self.resent = 0
        self.server_changes = 0
        self.last_error = ""
        self.sender_state = "connecting"

    @property
    def registered(self) -> bool:
        """See `Session`."""
        return self._living.registered

    @property
    def reoffers(self) -> int:
        """See `Session`."""
        return self._living.reoffers

    @property
    def retained(self) -> int:
        """See `Session`."""
        return self._living.retained

    @property
    def state(self) -> str:
        """See `Session`."""
        return self.sender_state if self.registered else self._living.state


class Backoff:
    """Pauses between attempts: doubled each time, with jitter so that agents do not march in step.

    Args:
        rng: Source of the jitter.
    """

    __slots__ = ("_pause_s", "_rng")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        """The pause before the next attempt, in seconds."""
        pause_s = self._pause_s * self._rng.uniform(0.5, 1.5)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def reset(self) -> None:
        """After a success: the next pause is short again."""
        self._pause_s = FIRST_PAUSE_S
