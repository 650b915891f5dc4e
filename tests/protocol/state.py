"""What the explored world consists of: values only, equal where they are the same.

A trajectory is named by a small integer of its own, whatever number its agent gives it: that is how
a number given twice is seen.
"""

from typing import Final, NamedTuple

from rl4sys_stream.broker.head import Counts
from rl4sys_stream.broker.ledger import LedgerRecord
from tests.protocol.rules import FAULTS, Scenario

__all__ = [
    "ANSWERED",
    "DURABLE",
    "TO_SEND",
    "Agent",
    "Broker",
    "Entry",
    "Head",
    "Ledgers",
    "Offer",
    "Session",
    "State",
    "Work",
    "agent_name",
    "first_state",
    "left",
    "spend",
]

TO_SEND: Final = 0
ANSWERED: Final = 1
DURABLE: Final = 2
"""Answered so long ago that no failure that is covered undoes it: `retain_s` has passed."""

OWN: Final = 10
"""Trajectory i of agent a is named OWN * a + i."""

Ledgers = tuple[tuple[str, LedgerRecord], ...]


class Offer(NamedTuple):
    """A trajectory with its number, at its agent."""

    seq: int
    what: int
    stage: int


class Agent(NamedTuple):
    """One agent id; with a spool it outlives its process."""

    name: str
    spool: bool
    queued: tuple[int, ...]
    offered: tuple[Offer, ...]
    unnoted: tuple[Offer, ...]
    """Released, which the spool does not say yet."""
    issued: int
    unaware: bool = False
    """Another server answers it, and it has not looked yet."""


class Entry(NamedTuple):
    """One stream entry."""

    id: int
    agent: str
    seq: int
    floor: int
    what: int


class Head(NamedTuple):
    """What is committed; `trained` is what the weights of this version have learned from."""

    version: int
    token: int
    commit: tuple[int, int]
    trained: tuple[int, ...]
    counts: Counts


class Broker(NamedTuple):
    """The keys of the client; a rollback takes all of them back together."""

    stream: tuple[Entry, ...]
    last_id: int
    delivered: int
    pending: tuple[int, ...]
    fence: int
    head: Head
    ledgers: Ledgers
    quarantine: tuple[int, ...]
    passed: tuple[tuple[str, int], ...]
    """agent -> the highest floor of its settled entries; for the invariants only."""


class Work(NamedTuple):
    """A commit under way."""

    commit: tuple[int, int]
    started_from: Head
    head: Head
    ids: tuple[int, ...]
    refused: tuple[int, ...]
    watermarks: Ledgers


class Session(NamedTuple):
    """One tenure of a worker; the parts of `Books` and `Intake` that are not derived from others.

    `in_hand` has all entries; `waiting` to `refused` name some of them by id.
    """

    token: int
    head: Head
    ledgers: Ledgers
    counts: Counts
    in_hand: tuple[Entry, ...]
    waiting: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()
    settled: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    scanned: tuple[tuple[str, int], ...] = ()
    floors: tuple[tuple[str, int], ...] = ()
    gaps: tuple[str, ...] = ()
    dirty: tuple[str, ...] = ()
    unanswered: Work | None = None
    commits: int = 0
    elsewhere: bool = False
    """It began at a server process that has gone."""


class State(NamedTuple):
    """The world."""

    agents: tuple[Agent, ...]
    broker: Broker
    disk: Broker | None
    """What a rollback brings back; None where nothing is ever lost."""
    deep: Broker | None
    """What a rollback beyond retention brings back."""
    worker: Session | None
    zombie: Session | None
    tokens: int
    budget: tuple[int, ...]
    excused: tuple[int, ...]
    """Trajectories that a third party destroyed."""
    dropped: tuple[int, ...]
    """By the drop policy, counted."""
    died: tuple[int, ...]
    """With a process that had no spool, or in a loss beyond retention: outside the promise."""
    too_deep: bool = False
    torn: bool = False
    """The destroyed entry had been read. If the worker that did dies as well, what said that the
    agent had moved on may be settled: the gap stays until the agent sends again."""


def agent_name(agent: int) -> str:
    """Its id."""
    return f"a{agent}"


def first_state(scenario: Scenario) -> State:
    """All has ended, nothing is sent, version 1 is published."""
    agents = tuple(
        Agent(agent_name(a), spool, tuple(OWN * a + i for i in range(count)), (), (), 0)
        for a, (count, spool) in enumerate(zip(scenario.trajectories, scenario.spools, strict=True))
    )
    head = Head(1, 0, (0, 0), (), Counts())
    broker = Broker((), 0, 0, (), 0, head, (), (), ())
    budget = scenario.budget()
    known = dict(zip(FAULTS, budget, strict=True))
    disk = broker if known["rollback"] or known["quiet"] or known["deep"] else None
    deep = broker if known["deep"] else None
    return State(agents, broker, disk, deep, None, None, 0, budget, (), (), ())


def left(state: State, fault: str) -> int:
    """How many more of `fault` may happen."""
    return state.budget[FAULTS.index(fault)]


def spend(state: State, fault: str) -> State | None:
    """The state in which one more of `fault` has happened; None if no more may happen."""
    at = FAULTS.index(fault)
    if not state.budget[at]:
        return None
    budget = (*state.budget[:at], state.budget[at] - 1, *state.budget[at + 1 :])
    return state._replace(budget=budget)
