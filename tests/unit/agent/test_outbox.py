"""The queue is bounded, its drops follow the policy, and its books always balance."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import DropPolicy, OutboxLimits, Sealed
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.testing import eventually


def make(
    policy: DropPolicy = "drop_oldest",
    *,
    entries: int = 3,
    size: int = 1000,
    timeout_s: float | None = None,
) -> Outbox:
    """A small outbox."""
    limits = OutboxLimits(
        max_entries=entries, max_bytes=size, drop_policy=policy, block_timeout_s=timeout_s
    )
    return Outbox(limits)


def put(outbox: Outbox, name: str, size: int = 10, *, times: int = 1) -> None:
    """Accept and queue an entry, `times` over."""
    for _ in range(times):
        outbox.accept(1)
        outbox.put(Sealed(((b"name", name.encode()),), size))


def names(outbox: Outbox) -> list[str]:
    """Take everything; what it was called."""
    return [entry.fields[0][1].decode() for entry in outbox.take(100, 1 << 30)]


def test_numbers_are_given_in_order_when_entries_are_taken():
    """From 1, without gaps, however they are taken."""
    outbox = make()
    put(outbox, "a")
    put(outbox, "b")
    first = outbox.take(1, 1 << 30)
    put(outbox, "c")
    rest = outbox.take(100, 1 << 30)
    assert [entry.seq for entry in (*first, *rest)] == [1, 2, 3]
    counts = outbox.counts()
    assert (counts.issued, counts.queued, counts.unanswered) == (3, 0, 3)


def test_a_full_queue_drops_the_oldest_by_default():
    """What is oldest was acted by the oldest policy."""
    outbox = make("drop_oldest")
    for name in "abcde":
        put(outbox, name)
    assert outbox.counts().dropped == 2
    assert names(outbox) == ["c", "d", "e"]


def test_a_full_queue_drops_the_newest_on_request():
    """For applications whose first data matter most."""
    outbox = make("drop_newest")
    for name in "abcde":
        put(outbox, name)
    assert outbox.counts().dropped == 2
    assert names(outbox) == ["a", "b", "c"]


def test_what_was_offered_is_never_dropped():
    """The drop policy touches only the queue; numbers have no gaps."""
    outbox = make("drop_oldest")
    put(outbox, "a")
    offered = outbox.take(1, 1 << 30)
    for name in "bcde":
        put(outbox, name)
    assert outbox.counts().dropped == 1
    assert offered[0].seq == 1
    assert [entry.seq for entry in outbox.take(100, 1 << 30)] == [2, 3, 4]


def test_the_queue_is_bounded_in_bytes_too():
    """One large entry pushes several small ones out."""
    outbox = make("drop_oldest", entries=100, size=100)
    for name in "abc":
        put(outbox, name, 30)
    put(outbox, "large", 80)
    assert names(outbox) == ["large"]
    assert outbox.counts().dropped == 3


def test_an_entry_larger_than_the_queue_is_dropped_and_drops_nothing_else():
    """It could never fit."""
    outbox = make("drop_oldest", size=100)
    put(outbox, "a", 30)
    put(outbox, "monster", 101)
    assert outbox.counts().dropped == 1
    assert names(outbox) == ["a"]


def test_block_waits_for_room_and_drops_nothing_if_it_comes():
    """The application asked to be held back."""
    outbox = make("block", timeout_s=30)
    for name in "abc":
        put(outbox, name)
    waiting = threading.Thread(target=put, args=(outbox, "d"))
    waiting.start()
    eventually(lambda: outbox.counts().sealing == 1)
    assert [entry.seq for entry in outbox.take(1, 1 << 30)] == [1]
    waiting.join(10)
    assert outbox.counts().dropped == 0
    assert names(outbox) == ["b", "c", "d"]


def test_block_drops_the_newest_after_its_timeout():
    """Waiting has a limit."""
    outbox = make("block", timeout_s=0.01)
    for name in "abcd":
        put(outbox, name)
    assert outbox.counts().dropped == 1
    assert names(outbox) == ["a", "b", "c"]


def test_closing_ends_a_blocked_put_and_counts_what_comes_after():
    """Nothing waits for a sender that is gone."""
    outbox = make("block", timeout_s=30)
    for name in "abc":
        put(outbox, name)
    waiting = threading.Thread(target=put, args=(outbox, "d"))
    waiting.start()
    eventually(lambda: outbox.counts().sealing == 1)
    outbox.close()
    waiting.join(10)
    assert not waiting.is_alive()
    put(outbox, "e")
    counts = outbox.counts()
    assert (counts.dropped, counts.queued, counts.accepted) == (5, 0, 5)


def test_a_take_is_bounded_in_bytes_but_gives_at_least_one():
    """An entry larger than a batch still has to go."""
    outbox = make(size=1000)
    for name in "abc":
        put(outbox, name, 60)
    assert len(outbox.take(100, 130)) == 2
    assert len(outbox.take(100, 10)) == 1


def test_empty_means_answered_too():
    """What is under way may still be lost."""
    outbox = make()
    put(outbox, "a")
    assert not outbox.wait_until_empty(0.0)
    outbox.take(1, 100)
    assert not outbox.wait_until_empty(0.0)
    outbox.answered(1)
    assert outbox.wait_until_empty(0.0)


@settings(max_examples=200, deadline=None)
@given(
    policy=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 120)),
            st.tuples(st.just("take"), st.integers(1, 4)),
            st.tuples(st.just("quarantine"), st.just(0)),
        ),
        max_size=60,
    ),
)
def test_the_books_balance_after_every_action(policy, actions):
    """Every accepted trajectory is in one place, and the queue within its bounds."""
    outbox = make(policy, entries=4, size=200, timeout_s=1e-6)
    taken: list[int] = []
    for action, number in actions:
        if action == "put":
            put(outbox, "x", number)
        elif action == "take":
            taken += [entry.seq for entry in outbox.take(number, 1 << 30)]
        else:
            outbox.accept(1)
            outbox.quarantine()
        counts = outbox.counts()
        assert counts.accepted == (
            counts.sealing + counts.queued + counts.issued + counts.dropped + counts.quarantined
        )
        assert counts.queued <= 4
        assert counts.queued_bytes <= 200
    assert taken == list(range(1, len(taken) + 1))
    assert outbox.counts().accepted == sum(action != "take" for action, _ in actions)


def test_the_books_balance_under_many_threads():
    """Counts are exact, not approximate, when threads end trajectories at the same time."""
    outbox = make("drop_newest", entries=1_000_000, size=1 << 40)
    threads = [
        threading.Thread(target=put, args=(outbox, "x"), kwargs={"times": 500}) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = outbox.counts()
    assert (counts.accepted, counts.queued, counts.queued_bytes) == (4000, 4000, 40_000)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_the_default_policies_never_wait(policy):
    """Only "block" may hold the application up."""
    outbox = make(policy, entries=1, timeout_s=30)
    thread = threading.Thread(target=put, args=(outbox, "x"), kwargs={"times": 100})
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert outbox.counts().dropped == 99


def test_a_floor_that_waits_while_the_spool_is_given_up_is_nobodys(tmp_path):
    """The sender of an adopted agent may be late: then the books are another agent's already."""
    outbox = make()
    outbox.attach(SpoolJournal.create(tmp_path, "agent", fsync=False, clock=SystemClock()))
    failed: list[BaseException] = []

    def late() -> None:
        try:
            outbox.released(9)
        except AttributeError as error:
            failed.append(error)

    sender = threading.Thread(target=late)

    def interrupted(descriptor: int, data: object, offset: int) -> int:
        # In the middle of a write, so the outbox is locked and the sender has to wait.
        sender.start()
        sender.join(0.1)
        outbox.close_journal(told=True)
        raise OSError("the folder is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.pwrite", interrupted)
        outbox.accept(1)
    sender.join()
    assert failed == []


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_dead_agents_left_counts_against_the_spool(tmp_path, policy):
    """A full disk share is like a disk without room: memory, within its limits, then the policy."""
    limits = OutboxLimits(5, 500, policy, None, spool_bytes=1000)
    outbox = Outbox(limits)
    outbox.attach(SpoolJournal.create(tmp_path, "agent", fsync=False, clock=SystemClock()))
    outbox.share_disk(800)
    for name in "abcdefgh":
        put(outbox, name, 100)
    counts = outbox.counts()
    assert (counts.queued, counts.dropped, counts.queued_bytes) == (5, 3, 500)
    assert counts.unsaved >= 3
    outbox.share_disk(0)
    for name in "ij":
        put(outbox, name, 100)
    outbox.close()
    counts = outbox.counts()
    assert counts.accepted == counts.queued + counts.dropped == 10
    assert counts.queued == 2, "what the spool had room for: the first two, or the last"
    outbox.close_journal(told=True)
