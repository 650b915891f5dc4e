"""A worker's real lease, intake, books and commits, one step at a time, over weights that remember.

The weights of a version are the list of the trajectories that they were trained on: what is trained
twice stands in it twice.
"""

from dataclasses import replace

import msgspec

from rl4sys_stream.broker.commit import Commit, commit, new_commit_id
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Counts, Head, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.ledger import read_ledgers
from rl4sys_stream.broker.server_facts import read_identity
from rl4sys_stream.broker.stage import stage
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.worker.intake import Intake
from rl4sys_stream.worker.settlement import Books, Settlement
from tests.unit.worker.entries import SPEC

__all__ = ["SteppedWorker", "trained_tags"]


def trained_tags(broker: Broker, keys: ClientKeys) -> list[int]:
    """What the newest version was trained on, and what its bases were."""
    head = read_head(broker, keys)
    if head is None:
        return []
    (weights,) = broker.hash_get(head.model, "tags")
    assert weights is not None
    return msgspec.json.decode(weights, type=list[int])


class SteppedWorker:
    """One tenure: what `Worker._session` and `Session` do, without threads and mathematics."""

    def __init__(self, broker: Broker, keys: ClientKeys) -> None:
        self._broker, self._keys = broker, keys
        self._lease = Lease(broker, keys, ttl_s=1000)
        assert self._lease.acquire(force=True)
        self._server = read_identity(broker)
        self._head = read_head(broker, keys)
        self._weights = trained_tags(broker, keys)
        self._stream = TrajectoryStream(broker, keys)
        self._intake = Intake(
            self._stream, SPEC, max_entries=1000, max_bytes=1 << 30, read_count=4, block_ms=1
        )
        self._stream.ensure_group()
        self._books = Books(
            read_ledgers(broker, keys),
            self._head.counts if self._head else Counts(),
            lineage_epoch=0,
            max_policy_lag=1000,
            rescan=self._intake.rescan,
        )
        self._unanswered: tuple[Commit, Head] | None = None
        if self._head is None:
            self._publish(Settlement(), [], lose_reply=False)
        self._intake._read_what_was_left()

    def read(self, count: int) -> None:
        """What the intake's thread does in one round."""
        entries = self._stream.read_new(count=count, block_ms=1)
        self._intake._queue(entries)
        if not entries:
            self._intake.look_for_forgotten(self._stream.pending_count())

    def take(self, count: int) -> None:
        """Look at so many of what waits."""
        assert self._head is not None
        for _ in range(min(count, self._intake.waiting)):
            candidate = self._intake.take(0)
            assert candidate is not None
            self._books.accept(candidate, self._head)

    def commit(self, *, train: bool, lose_reply: bool = False) -> None:
        """Train on all that was accepted, or settle the rest alone; or repeat what is unanswered.

        Raises:
            CommitRefusedError: This tenure is over.
        """
        if self._unanswered is not None:
            work, head = self._unanswered
            self._unanswered = None
            self._carry_out(work, head, lose_reply=False)
        elif train and self._books.accepted:
            tags = [item.trajectory.episode for item in self._books.held()]
            self._publish(self._books.settle_trained(), tags, lose_reply=lose_reply)
        elif not train and self._books.unsettled:
            assert self._head is not None
            settlement = self._books.settle_refused()
            head = replace(self._head, counts=settlement.counts)
            self._carry_out(self._work(settlement, head, ()), head, lose_reply=lose_reply)

    def _publish(self, settlement: Settlement, tags: list[int], *, lose_reply: bool) -> None:
        token, old = self._lease.token, self._head
        version = old.version + 1 if old else 1
        self._weights += tags
        model = self._keys.model(version, token)
        stage(self._broker, model, {"tags": msgspec.json.encode(self._weights)}, ttl_s=1000)
        head = Head(version, token, "line", model, model, (), settlement.counts)
        self._carry_out(self._work(settlement, head, (model,)), head, lose_reply=lose_reply)

    def _work(self, settlement: Settlement, head: Head, staged: tuple[str, ...]) -> Commit:
        old = self._head
        return Commit(
            commit_id=new_commit_id(),
            token=self._lease.token,
            expect_version=old.version if old else 0,
            expect_token=old.token if old else "",
            expect_commit=old.commit if old else "",
            expect_server=self._server,
            head=head,
            staged=staged,
            settled=settlement.entry_ids,
            refusals=settlement.refusals,
            deleted=settlement.entry_ids,
            watermarks=settlement.watermarks,
        )

    def _carry_out(self, work: Commit, head: Head, *, lose_reply: bool) -> None:
        if lose_reply:
            commit(self._broker, self._keys, work)
            self._unanswered = (work, head)
            return
        result = self._intake.settle(lambda: commit(self._broker, self._keys, work), work.settled)
        self._head = replace(head, commit=work.commit_id)
        self._intake.look_for_forgotten(result.pending)

    @property
    def busy(self) -> bool:
        """Whether it holds anything."""
        return bool(self._intake.waiting or self._books.size or self._unanswered)
