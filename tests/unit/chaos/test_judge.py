"""The judge of the chaos run: it must see what is lost or taken in twice, and nothing else."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.chaos.blackbox import ClientHistory, read_histories
from benchmarks.chaos.identity import Identity, identity_of
from benchmarks.chaos.judge import ClientVerdict, judge
from benchmarks.chaos.ledger import LedgerWriter, read_ledgers
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord

CLIENT, AGENT = "chaos", "agent-1"
KEYS = ClientKeys(CLIENT)
COUNT = 4


def one(ordinal: int) -> Identity:
    """The trajectory of that ordinal."""
    return Identity(application=3, incarnation=1, agent=2, ordinal=ordinal)


class Recorder:
    """Writes an append-only file as a broker does, and the ledger of an application."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes = b""
        self._base: tuple[int, str] | None = None
        writer = LedgerWriter(folder / "3-1.ledger")
        writer.agent(one(0), AGENT, CLIENT, spooled=True)
        for ordinal in range(1, COUNT + 1):
            writer.ended(one(ordinal), late=False)

    def command(self, *words: str | bytes | int) -> None:
        """A command, as the broker writes it."""
        parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._bytes += b"*%d\r\n%s" % (len(parts), body)

    def append(self, entry_id: str, seq: int, ordinal: int | None = None) -> None:
        """An entry of the stream."""
        obs = np.stack([one(ordinal or seq).observation(), np.zeros(4, np.float32)])
        address = ("agent_id", AGENT, "seq", seq, "floor", 1)
        self.command("XADD", KEYS.traj, entry_id, *address, "obs", obs.astype("<f4").tobytes())

    def commit(
        self,
        version: int,
        token: str,
        *,
        trained: list[int],
        ids: list[str],
        books: LedgerRecord,
        refused: str = "",
    ) -> None:
        """A commit; a version, if it trains on something or is the first."""
        if trained or self._base is None:
            model = KEYS.model(version, token)
            provenance = msgspec.json.encode({"agents": {AGENT: trained} if trained else {}})
            self.command("HSET", model, "provenance", provenance)
            if self._base is not None:
                self.command("HSET", model, "base_version", self._base[0])
                self.command("HSET", model, "base_token", self._base[1])
            self._base = version, token
        record = msgspec.json.encode(books)
        self.command("MULTI")
        if ids:
            self.command("XACK", KEYS.traj, "workers", *ids)
            self.command("XDEL", KEYS.traj, *ids)
        if refused:
            self.command("XADD", KEYS.quarantine, "1-1", "entry_id", refused, "reason", "bad")
        head = ("version", version, "token", token, "updated_ms", 1)
        self.command("HSET", KEYS.head, "commit", "c", *head)
        self.command("HSET", KEYS.seq, AGENT, record)
        self.command("EXEC")

    def history(self) -> ClientHistory:
        """What the reader makes of it."""
        path = self._folder / "a.1.incr.aof"
        path.write_bytes(self._bytes)
        return read_histories([path], [CLIENT])[CLIENT]

    def deliver(self, entry_id: str) -> None:
        """A worker reads an entry."""
        words = (entry_id, "TIME", 1, "RETRYCOUNT", 1, "FORCE", "JUSTID", "LASTID", entry_id)
        self.command("XCLAIM", KEYS.traj, "workers", "workers", 0, *words)

    def poison(self, ordinal: int) -> None:
        """An application says that no update can use what it plays next."""
        with (self._folder / "3-1.ledger").open("a", encoding="ascii") as file:
            file.write(f"P {one(ordinal).number():x}\n")

    def verdict(self, *, flushed_ms: int = 0, n_steps: int = 128) -> ClientVerdict:
        """What the judge makes of that."""
        ledger = read_ledgers(self._folder)
        return judge(self.history(), ledger, CLIENT, flushed_ms=flushed_ms, n_steps=n_steps)


@pytest.fixture
def broker(tmp_path):
    """With a first version, and four entries."""
    recorder = Recorder(tmp_path)
    recorder.commit(1, "1:a", trained=[], ids=[], books=LedgerRecord())
    for seq in range(1, COUNT + 1):
        recorder.append(f"{seq}-0", seq)
    return recorder


@pytest.mark.parametrize("ordinal", [0, 1, 65_535, 65_536, 2**32 - 1])
def test_an_identity_survives_the_observation(ordinal):
    """Bit for bit, although float32 holds 24 bits."""
    identity = Identity(65_535, 4095, 15, ordinal)
    column = np.stack([identity.observation(), np.ones(4, np.float32)]).astype("<f4").tobytes()
    assert identity_of(column) == identity
    assert Identity.from_number(identity.number()) == identity


def test_what_is_trained_once_or_waits_is_well(broker):
    """The ordinary course."""
    books = LedgerRecord(watermark=2, trained=2)
    broker.commit(2, "1:a", trained=[1, 2], ids=["1-0", "2-0"], books=books)
    verdict = broker.verdict()
    assert verdict.fates == {"trained": 2, "pending": 2, "lost": 0}
    assert verdict.violations == []


def test_what_is_nowhere_is_lost(broker):
    """Destroyed, and the worker has not passed over its number."""
    broker.command("XDEL", KEYS.traj, "4-0")
    books = LedgerRecord(watermark=3, trained=3)
    broker.commit(2, "1:a", trained=[1, 2, 3], ids=["1-0", "2-0", "3-0"], books=books)
    verdict = broker.verdict()
    assert verdict.fates == {"trained": 3, "lost": 1}
    assert len(verdict.violations) == 1
    assert "lost" in verdict.violations[0]


def test_what_was_destroyed_and_passed_over_is_skipped(broker):
    """By its owner's floor; the books have to say so, too."""
    broker.command("XDEL", KEYS.traj, "2-0")
    books = LedgerRecord(watermark=4, trained=3, skipped=1)
    broker.commit(2, "1:a", trained=[1, 3, 4], ids=["1-0", "3-0", "4-0"], books=books)
    verdict = broker.verdict()
    assert verdict.fates == {"trained": 3, "skipped": 1, "lost": 0}
    assert verdict.violations == []


def test_a_number_in_two_versions_of_the_line_is_taken_in_twice(broker):
    """The second time under another entry."""
    broker.append("5-0", 1)
    books = LedgerRecord(watermark=1, trained=1)
    broker.commit(2, "1:a", trained=[1], ids=["1-0"], books=books)
    broker.commit(3, "1:a", trained=[1], ids=["5-0"], books=books)
    verdict = broker.verdict()
    assert verdict.twice == 1
    assert any("twice" in text for text in verdict.violations)


def test_a_version_that_was_never_committed_took_nothing_in(broker):
    """A zombie staged it; the head does not descend from it."""
    provenance = msgspec.json.encode({"agents": {AGENT: [1, 2]}})
    broker.command("HSET", KEYS.model(2, "1:zombie"), "provenance", provenance)
    books = LedgerRecord(watermark=1, trained=1)
    broker.commit(2, "2:b", trained=[1], ids=["1-0"], books=books)
    verdict = broker.verdict()
    assert verdict.fates["trained"] == 1
    assert verdict.violations == []


def test_a_second_copy_that_is_settled_first_is_no_drop(broker):
    """The learner holds the first one meanwhile."""
    broker.append("5-0", 1)
    broker.commit(1, "1:a", trained=[], ids=["5-0"], books=LedgerRecord(duplicate=1))
    books = LedgerRecord(watermark=1, trained=1, duplicate=1)
    broker.commit(2, "1:a", trained=[1], ids=["1-0"], books=books)
    verdict = broker.verdict()
    assert verdict.fates == {"trained": 1, "pending": 3, "lost": 0}
    assert verdict.duplicates == 1
    assert verdict.violations == []


def test_a_silent_drop_is_seen_in_the_books(broker):
    """An entry is acknowledged, no version names it, and the counts do not own up to it."""
    books = LedgerRecord(watermark=2, trained=1)
    broker.commit(2, "1:a", trained=[1], ids=["1-0", "2-0"], books=books)
    assert any("contradict" in text for text in broker.verdict().violations)


def test_a_number_that_was_given_twice_is_seen(broker):
    """Two trajectories, one number: one of them would be refused as a duplicate."""
    broker.append("5-0", 1, ordinal=9)
    assert any("given twice" in text for text in broker.verdict().violations)


def test_a_version_out_of_the_line_is_seen(broker):
    """Its base is not the version before it."""
    books = LedgerRecord(watermark=1, trained=1)
    broker.commit(2, "1:a", trained=[1], ids=["1-0"], books=books)
    broker.commit(4, "1:a", trained=[2], ids=["2-0"], books=LedgerRecord(watermark=2, trained=2))
    assert any("gaps" in text for text in broker.verdict().violations)


def test_what_never_reached_the_broker_is_lost(tmp_path):
    """Whatever the agent says about it: it had room."""
    recorder = Recorder(tmp_path)
    recorder.commit(1, "1:a", trained=[], ids=[], books=LedgerRecord())
    verdict = recorder.verdict()
    assert verdict.fates == {"lost": COUNT}
    assert any("lost" in text for text in verdict.violations)


def test_an_entry_that_is_acknowledged_outside_a_commit_is_no_pending_one(broker):
    """It lies in the stream, and no worker is ever given it again."""
    broker.deliver("1-0")
    broker.command("XACK", KEYS.traj, "workers", "1-0")
    verdict = broker.verdict()
    assert verdict.fates == {"stranded": 1, "pending": 3, "lost": 0}
    assert len(verdict.violations) == 1
    assert "no worker will read them" in verdict.violations[0]


def test_what_the_readers_were_moved_past_is_no_pending_one(broker):
    """Somebody set the group's last id beyond entries that nobody has read."""
    broker.command("XGROUP", "SETID", KEYS.traj, "workers", "3-0", "ENTRIESREAD", 3)
    verdict = broker.verdict()
    assert verdict.fates == {"stranded": 3, "pending": 1, "lost": 0}
    assert verdict.violations


def test_what_a_worker_holds_is_pending(broker):
    """It was given out, and the next worker gets it again."""
    broker.deliver("1-0")
    broker.deliver("2-0")
    verdict = broker.verdict()
    assert verdict.fates == {"pending": 4, "lost": 0}
    assert verdict.violations == []


def test_what_still_waits_after_another_rollout_is_a_violation(broker):
    """Entries 1 and 2 are older than the flush."""
    (violation,) = broker.verdict(flushed_ms=3).violations
    assert "still wait" in violation
    assert "1-0, 2-0" in violation


def test_a_whole_rollout_may_not_wait(broker):
    """Four trajectories of two steps each."""
    assert broker.verdict(n_steps=9).violations == []
    (violation,) = broker.verdict(n_steps=8).violations
    assert "8 steps wait" in violation


@pytest.mark.parametrize("poisoned", [True, False])
def test_the_quarantine_is_for_poison(broker, poisoned):
    """A harmless trajectory in it is a violation."""
    if poisoned:
        broker.poison(1)
    books = LedgerRecord(watermark=2, trained=1, quarantined=1)
    broker.commit(2, "1:a", trained=[2], ids=["1-0", "2-0"], books=books, refused="1-0")
    verdict = broker.verdict()
    assert verdict.fates == {"quarantined": 1, "trained": 1, "pending": 2, "lost": 0}
    assert [("harmless" in text) for text in verdict.violations] == [True] * (not poisoned)


def test_poison_that_was_trained_on_is_seen(broker):
    """No update can use it."""
    broker.poison(1)
    books = LedgerRecord(watermark=1, trained=1)
    broker.commit(2, "1:a", trained=[1], ids=["1-0"], books=books)
    (violation,) = broker.verdict().violations
    assert "spoil" in violation
