"""The balance of an agent: it closes when nothing is lost, and only then."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl4sys_stream.broker.audit import AgentBalance, AuditReport, balance_agent
from rl4sys_stream.broker.ledger import AgentLedger, LedgerRecord, Outcome
from rl4sys_stream.broker.registry import AgentHeartbeat


def beat(**counts: int) -> AgentHeartbeat:
    """A heartbeat whose own books balance."""
    parts = ("issued", "queued", "sealing", "dropped", "quarantined")
    accepted = sum(counts.get(name, 0) for name in parts)
    said = AgentHeartbeat(agent_id="a", accepted=accepted)
    return msgspec.structs.replace(said, **counts)


def test_every_trajectory_is_in_one_place():
    """Ten issued: six settled, one in the stream, one on the way there, two queued apart."""
    ledger = LedgerRecord(
        watermark=5, above=(7,), trained=3, quarantined=1, dropped=1, skipped=1, duplicate=4
    )
    said = beat(issued=8, floor=6, queued=2, sealing=1, dropped=3, quarantined=2)
    balance = balance_agent("a", said, ledger, {2, 6, 7})
    assert balance == AgentBalance(
        agent_id="a",
        live=True,
        accepted=16,
        trained=3,
        quarantined=3,
        dropped=4,
        skipped=1,
        pending=5,
        lost=0,
        duplicates=4,
        missing=0,
    )
    assert balance.closes
    total = balance.trained + balance.quarantined + balance.dropped + balance.skipped
    assert total + balance.pending == balance.accepted


def test_a_number_that_is_nowhere_is_missing():
    """Below the floor, not in the stream, not settled."""
    balance = balance_agent("a", beat(issued=4, floor=4), LedgerRecord(), {1, 3})
    assert (balance.missing, balance.pending, balance.closes) == (1, 3, False)


def test_what_a_closed_agent_left_undelivered_is_lost():
    """It said goodbye, so nobody offers it any more: the balance is open, and says by how much."""
    said = msgspec.structs.replace(beat(issued=3, floor=2, queued=1), closed=True)
    balance = balance_agent("a", said, LedgerRecord(watermark=1, trained=1), {2})
    assert (balance.lost, balance.pending, balance.missing) == (2, 1, 0)
    assert not balance.live
    assert not balance.closes
    delivered = balance_agent(
        "a", msgspec.structs.replace(said, queued=0, accepted=3), LedgerRecord(), {1, 2, 3}
    )
    assert (delivered.lost, delivered.closes) == (0, True)


@pytest.mark.parametrize(("silence_ms", "lost"), [(10_000, 0), (10_001, 2)])
def test_what_a_silent_agent_offered_is_pending_until_it_is_taken_for_dead(silence_ms, lost):
    """Outside of the promise without a spool, but never unsaid."""
    said = msgspec.structs.replace(beat(issued=2, floor=1), time_ms=5)
    balance = balance_agent("a", said, LedgerRecord(), (), now_ms=5 + silence_ms)
    assert (balance.lost, balance.pending) == (lost, 2 - lost)
    assert balance.live == (not lost)
    assert balance.closes


def test_an_agent_without_a_heartbeat_is_judged_by_what_is_known():
    """The highest number seen anywhere is what it accepted at least."""
    ledger = LedgerRecord(watermark=2, above=(5,), trained=3)
    assert balance_agent("a", None, ledger, {3, 4}).closes
    assert balance_agent("a", None, ledger, {4}).missing == 1


@pytest.mark.parametrize(
    "ledger",
    [
        LedgerRecord(watermark=3, trained=4),
        LedgerRecord(watermark=3, trained=2),
        LedgerRecord(watermark=3, above=(5,), trained=3),
    ],
)
def test_a_ledger_that_contradicts_itself_is_open(ledger):
    """Counting twice, or forgetting to count, shows although no number is missing."""
    balance = balance_agent("a", beat(issued=5, floor=4), ledger, ())
    assert balance.missing == 0
    assert "the ledger settles" in balance.inconsistent
    assert not balance.closes


def test_an_agent_that_contradicts_itself_is_open():
    """It accepted one more than it can account for."""
    said = msgspec.structs.replace(beat(issued=2, floor=3), accepted=3)
    balance = balance_agent("a", said, LedgerRecord(watermark=2, trained=2), ())
    assert "accepted 3 and accounts for 2" in balance.inconsistent


def test_the_report_closes_if_every_balance_does():
    """One open agent opens the client's."""
    good = balance_agent("a", beat(issued=1, floor=2), LedgerRecord(watermark=1, trained=1), ())
    bad = balance_agent("b", beat(issued=1, floor=2), LedgerRecord(), ())
    assert AuditReport("c", (good, good), 0, 0, 0).closes
    report = AuditReport("c", (good, bad), 0, 0, 0)
    assert not report.closes
    assert report.total("trained") == 1
    assert report.total("missing") == 1


@dataclass
class World:
    """An agent, its stream and its ledger, as DESIGN's rules move them."""

    books: Counter[str] = field(default_factory=Counter)
    issued: int = 0
    appended: int = 0
    floor: int = 1
    stream: list[int] = field(default_factory=list)
    ledger: AgentLedger = field(default_factory=AgentLedger)

    def accept(self) -> None:
        """The application ends a trajectory."""
        self.books["sealing"] += 1

    def seal(self, to: str) -> None:
        """Its rewards are there, or never come, or the queue is full."""
        if self.books["sealing"]:
            self.books["sealing"] -= 1
            self.books[to] += 1

    def issue(self) -> None:
        """It gets its number."""
        if self.books["queued"]:
            self.books["queued"] -= 1
            self.issued += 1

    def append(self) -> None:
        """The next number reaches the stream, in order."""
        if self.appended < self.issued:
            self.appended += 1
            self.stream.append(self.appended)

    def offer_again(self) -> None:
        """After a reconnect all that is retained is sent once more."""
        self.stream.extend(range(self.floor, self.appended + 1))

    def release(self) -> None:
        """Retention is over for the oldest number."""
        if self.floor <= self.appended:
            self.floor += 1

    def settle(self, index: int, outcome: Outcome) -> None:
        """A commit takes one entry out of the stream."""
        if self.stream:
            seq = self.stream.pop(index % len(self.stream))
            fate = Outcome.DUPLICATE if self.ledger.is_settled(seq) else outcome
            self.ledger.settle(seq, fate)

    def heartbeat(self) -> AgentHeartbeat:
        """What the agent says."""
        return beat(issued=self.issued, floor=self.floor, **self.books)


SEALED = ("queued", "queued", "queued", "dropped", "quarantined")
FATES = (Outcome.TRAINED, Outcome.QUARANTINED, Outcome.DROPPED)
EVENTS = st.one_of(
    st.just(("accept",)),
    st.tuples(st.just("seal"), st.sampled_from(SEALED)),
    st.just(("issue",)),
    st.just(("append",)),
    st.just(("offer_again",)),
    st.just(("release",)),
    st.tuples(st.just("settle"), st.integers(0, 40), st.sampled_from(FATES)),
)
BUSY = st.lists(EVENTS, min_size=20, max_size=80)


Events = list[tuple[object, ...]]


def play(world: World, events: Events) -> None:
    """Let `events` happen."""
    for name, *arguments in events:
        getattr(world, str(name))(*arguments)


def run_of(world: World, *, before: Events, between: Events, last: Events) -> AgentBalance:
    """Read the books as `audit_client` does, while events go on between the reads."""
    play(world, before)
    said = world.heartbeat()
    play(world, between[::2])
    known = world.ledger.record().highest
    play(world, between[1::2])
    streamed = set(world.stream)
    play(world, last)
    return balance_agent("a", said, world.ledger.record(), streamed, known=known)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(BUSY, BUSY)
def test_the_balance_closes_at_every_instant(before, between):
    """Whatever happens between the heartbeat and the reads of stream and ledger."""
    world = World()
    balance = run_of(world, before=before, between=between, last=[])
    assert balance.closes, balance
    outcomes = balance.trained + balance.quarantined + balance.dropped + balance.skipped
    assert outcomes + balance.pending == balance.accepted


@given(BUSY, BUSY, BUSY)
def test_the_balance_closes_while_commits_run(before, between, last):
    """Entries read in the stream may be settled by the time the ledger is read."""
    world = World()
    settling = [event for event in last if event[0] == "settle"]
    assert run_of(world, before=before, between=between, last=settling).closes


@given(BUSY, BUSY, BUSY)
def test_the_balance_closes_while_agents_send_and_commits_run(before, between, last):
    """Numbers may even be given, sent and settled between the last two reads, in any order."""
    balance = run_of(World(), before=before, between=between, last=last)
    assert balance.closes, balance
    outcomes = balance.trained + balance.quarantined + balance.dropped + balance.skipped
    assert outcomes + balance.pending == balance.accepted


@given(BUSY, st.data())
def test_an_entry_that_disappears_opens_the_balance(events, data):
    """Deleted from the stream by a third party, once the agent has stopped to offer it."""
    world = World()
    play(world, [*events, ("accept",), ("seal", "queued"), ("issue",)])
    while world.appended < world.issued:
        world.append()
    world.floor = world.issued + 1
    in_stream = sorted({seq for seq in world.stream if not world.ledger.is_settled(seq)})
    victim = data.draw(st.sampled_from(in_stream))
    world.stream = [seq for seq in world.stream if seq != victim]
    balance = run_of(world, before=[], between=[], last=[])
    assert balance.missing == 1
    assert not balance.closes
    # A later entry says the floor; the worker passes the gap, and the loss is on record.
    world.ledger.skip_below(world.floor, world.stream)
    play(world, [("settle", 0, Outcome.TRAINED)] * len(world.stream))
    world.ledger.skip_below(world.floor, ())
    settled = run_of(world, before=[], between=[], last=[])
    assert settled.closes
    assert settled.skipped == 1


@given(BUSY, st.sampled_from(FATES))
def test_a_fate_counted_twice_opens_the_balance(events, fate):
    """The counts and the numbers are kept apart, so one cannot hide in the other."""
    world = World()
    play(world, events)
    record = world.ledger.record()
    doubled = msgspec.structs.replace(record, **{fate.value: getattr(record, fate.value) + 1})
    balance = balance_agent("a", world.heartbeat(), doubled, set(world.stream))
    assert not balance.closes


@given(BUSY)
def test_a_lost_commit_that_deleted_its_entries_opens_the_balance(events):
    """The usual design: acknowledge first, and the ledger never hears of it."""
    world = World()
    play(world, [*events, ("accept",), ("seal", "queued"), ("issue",)])
    while world.appended < world.issued:
        world.append()
    world.floor = world.issued + 1
    lost = {seq for seq in world.stream if not world.ledger.is_settled(seq)}
    world.stream = []
    balance = run_of(world, before=[], between=[], last=[])
    assert balance.missing == len(lost) > 0
