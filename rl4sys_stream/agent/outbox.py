"""The bounded queue between the application's threads and the sender, and the agent's books.

The books balance at every instant, because one lock guards them:

    accepted = sealing + queued + issued + dropped + quarantined

Numbers are given here, so that an outbox on disk can give them earlier: when a trajectory is put
instead of when it is first offered.
"""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["DropPolicy", "MemoryOutbox", "Offered", "Outbox", "OutboxCounts", "Sealed"]

DropPolicy = Literal["drop_oldest", "drop_newest", "block"]


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """An encoded trajectory without an address.

    Attributes:
        fields: Of the stream entry.
        size_bytes: Names and values together.
    """

    fields: tuple[tuple[bytes, bytes], ...]
    size_bytes: int


class Offered:
    """A trajectory that has its number, for good.

    Attributes:
        seq: The number, from 1.
        fields: Of the stream entry, without the address.
        size_bytes: Names and values together.
        answered_at: Monotonic seconds of the broker's last answer; None while there is none.
    """

    __slots__ = ("answered_at", "fields", "seq", "size_bytes")

    def __init__(self, seq: int, sealed: Sealed) -> None:
        self.seq = seq
        self.fields = sealed.fields
        self.size_bytes = sealed.size_bytes
        self.answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """The books at one instant.

    Attributes:
        accepted: Trajectories whose end was marked, or that were cut.
        steps: Environment steps in them.
        sealing: Those that wait for rewards.
        queued: Those sealed and never offered yet.
        queued_bytes: Their size.
        issued: Numbers given.
        unanswered: Numbers that are offered and not answered by the broker.
        dropped: Discarded by the drop policy.
        quarantined: Given up because rewards were missing.
    """

    accepted: int
    steps: int
    sealing: int
    queued: int
    queued_bytes: int
    issued: int
    unanswered: int
    dropped: int
    quarantined: int


class Outbox(Protocol):
    """What recorder and sender need of it. An implementation may keep its entries on disk."""

    def accept(self, steps: int) -> None:
        """Count an ended trajectory, which waits for its rewards from now on."""
        ...

    def put(self, sealed: Sealed) -> None:
        """Queue an accepted trajectory, or drop one by the policy. Never raises."""
        ...

    def quarantine(self) -> None:
        """Count an accepted trajectory that is given up."""
        ...

    def take(self, max_entries: int, max_bytes: int) -> list[Offered]:
        """The oldest entries with their numbers; at least one if there is any."""
        ...

    def answered(self, count: int) -> None:
        """Note that the broker answered `count` offered entries; negative: they are unanswered."""
        ...

    def counts(self) -> OutboxCounts:
        """The books."""
        ...


class MemoryOutbox:
    """An outbox that lives and dies with the process."""

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        drop_policy: DropPolicy,
        block_timeout_s: float | None,
    ) -> None:
        """An empty outbox.

        Args:
            max_entries: Entries that may be queued.
            max_bytes: Their size.
            drop_policy: What `put` does when it is full.
            block_timeout_s: Longest wait of `put` under "block"; then the newest is dropped.
        """
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._policy = drop_policy
        self._block_timeout_s = block_timeout_s or 0.0
        self._changed = threading.Condition()
        self._queue: deque[Sealed] = deque()
        self._queued_bytes = 0
        self._accepted = self._steps = self._sealing = 0
        self._issued = self._unanswered = self._dropped = self._quarantined = 0
        self._poked = self._closed = False

    def accept(self, steps: int) -> None:
        """See `Outbox.accept`."""
        with self._changed:
            self._accepted += 1
            self._sealing += 1
            self._steps += steps

    def quarantine(self) -> None:
        """See `Outbox.quarantine`."""
        with self._changed:
            self._sealing -= 1
            self._quarantined += 1

    def put(self, sealed: Sealed) -> None:
        """See `Outbox.put`. Waits only under the policy "block", and at most its timeout."""
        with self._changed:
            if not self._fits(sealed) and self._policy == "block":
                self._changed.wait_for(
                    lambda: self._closed or not self._block_timeout_s or self._fits(sealed),
                    self._block_timeout_s,
                )
            self._sealing -= 1
            if self._policy == "drop_oldest" and sealed.size_bytes <= self._max_bytes:
                while not self._fits(sealed):
                    self._queued_bytes -= self._queue.popleft().size_bytes
                    self._dropped += 1
            if self._closed or not self._fits(sealed):
                self._dropped += 1
                return
            self._queue.append(sealed)
            self._queued_bytes += sealed.size_bytes
            self._changed.notify_all()

    def _fits(self, sealed: Sealed) -> bool:
        return (
            len(self._queue) < self._max_entries
            and self._queued_bytes + sealed.size_bytes <= self._max_bytes
        )

    def take(self, max_entries: int, max_bytes: int) -> list[Offered]:
        """See `Outbox.take`."""
        taken: list[Offered] = []
        with self._changed:
            while self._queue and len(taken) < max_entries:
                max_bytes -= self._queue[0].size_bytes
                if taken and max_bytes < 0:
                    break
                sealed = self._queue.popleft()
                self._queued_bytes -= sealed.size_bytes
                self._issued += 1
                taken.append(Offered(self._issued, sealed))
            self._unanswered += len(taken)
            if taken:
                self._changed.notify_all()
        return taken

    def answered(self, count: int) -> None:
        """See `Outbox.answered`."""
        with self._changed:
            self._unanswered -= count
            self._changed.notify_all()

    def counts(self) -> OutboxCounts:
        """See `Outbox.counts`."""
        with self._changed:
            return OutboxCounts(
                accepted=self._accepted,
                steps=self._steps,
                sealing=self._sealing,
                queued=len(self._queue),
                queued_bytes=self._queued_bytes,
                issued=self._issued,
                unanswered=self._unanswered,
                dropped=self._dropped,
                quarantined=self._quarantined,
            )

    def wait_for_work(self, timeout_s: float) -> None:
        """Return when something is queued, when poked, or after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._poked, timeout_s)
            self._poked = False

    def poke(self) -> None:
        """End a `wait_for_work`."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is queued or unanswered; False if `timeout_s` was not enough."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._queue and not self._unanswered, timeout_s
            )

    def stop_blocking(self) -> None:
        """From now on `put` waits for nobody: what does not fit is dropped at once."""
        with self._changed:
            self._block_timeout_s = 0.0
            self._changed.notify_all()

    def close(self) -> None:
        """Take and give no more: what is queued or put from now on is dropped, and counted."""
        with self._changed:
            self._closed = True
            self._dropped += len(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._changed.notify_all()
