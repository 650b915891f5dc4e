"""The bounded queue between the application's threads and the sender, and the agent's books.

The books balance at every instant, because one lock guards them:

    accepted = sealing + queued + issued + dropped + quarantined

With a spool behind it, what is queued is on disk as well, memory holds only the beginning of it,
and a number is written down before it is offered.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from itertools import dropwhile, groupby, islice
from typing import Final

from rl4sys_stream.agent.parcels import (
    Fields,
    Offered,
    OutboxCounts,
    OutboxLimits,
    Sealed,
)
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.errors import SpoolError
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["Outbox"]

logger = logging.getLogger("rl4sys_stream.agent")


SMALL_BYTES: Final = 1 << 10
"""A spool may hold as many trajectories of this size as fit: each has its place in memory."""


class _Queued:
    """A trajectory without a number: in memory, in the spool, or in both."""

    __slots__ = ("fields", "ordinal", "size_bytes")

    def __init__(self, size_bytes: int, fields: Fields | None, ordinal: int | None) -> None:
        self.size_bytes = size_bytes
        self.fields = fields
        self.ordinal = ordinal


class Outbox:
    """What has ended and is not with the sender yet."""

    def __init__(self, limits: OutboxLimits) -> None:
        """An empty outbox that lives and dies with the process."""
        self._limits = limits
        self._block_timeout_s = limits.block_timeout_s or 0.0
        self._changed = threading.Condition()
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._held_entries = self._held_bytes = 0  # of the queue, in memory
        self._accepted = self._steps = self._sealing = 0
        self._issued = self._unanswered = self._dropped = self._quarantined = 0
        self._taken_bytes = 0  # of the spool's, by dead agents
        self._poked = self._closed = False
        self._journal: SpoolJournal | None = None
        self._states = StateLog(logger)

    def attach(self, journal: SpoolJournal) -> list[Offered]:
        """Keep everything in `journal` from now on, and go on where it stands.

        Before anything was accepted. Not for the application's threads: it may read a lot.

        Returns:
            What is offered already, oldest first; the sender has to offer it again.
        """
        state = journal.state
        offered = []
        for number, ordinal, length in state.offered:
            for i in range(length):
                try:
                    fields = journal.read(ordinal + i)
                except SpoolError as error:
                    log_event(logger, logging.ERROR, "agent.spool_lost", error=error)
                    continue
                offered.append(Offered(number + i, fields, _size(fields)))
        queued = [
            _Queued(journal.size_bytes(ordinal + i), None, ordinal + i)
            for ordinal, length in state.queued
            for i in range(length)
        ]
        with self._changed:
            self._journal = journal
            self._accepted, self._steps, self._sealing = state.accepted, state.steps, state.sealing
            self._dropped, self._quarantined = state.dropped, state.quarantined
            self._issued, self._unanswered = state.issued, len(offered)
            self._queue = deque(queued)
            self._queued_bytes = sum(item.size_bytes for item in queued)
            self._changed.notify_all()
        return offered

    def share_disk(self, taken_bytes: int) -> None:
        """Note that dead agents' spools hold `taken_bytes` of what this one's may.

        What finds no room for that is kept in memory, as on a disk without room.
        """
        with self._changed:
            self._taken_bytes = taken_bytes
            self._changed.notify_all()

    def detach(self) -> None:
        """In a forked child: the spool is the parent's."""
        self._changed = threading.Condition()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close(remove=False)

    # -- the recorder's side ----------------------------------------------------------------------

    def accept(self, steps: int) -> None:
        """Count an ended trajectory, which waits for its rewards from now on."""
        with self._changed:
            self._accepted += 1
            self._sealing += 1
            self._steps += steps
            if self._journal:
                self._journal.accepted(steps)

    def quarantine(self) -> None:
        """Count an accepted trajectory that is given up."""
        with self._changed:
            self._sealing -= 1
            self._quarantined += 1
            if self._journal:
                self._journal.quarantined(1)

    def put(self, sealed: Sealed, *, patient: bool = True) -> bool:
        """Queue an accepted trajectory, or drop one by the policy. Never raises.

        Args:
            sealed: The trajectory.
            patient: Wait under the policy "block", at most its timeout. The application may; a
                thread that has more to do may not.

        Returns:
            False if it would have to wait and is not patient: it is the caller's still.
        """
        with self._changed:
            if not self._fits(sealed) and self._limits.drop_policy == "block":
                if not patient and self._block_timeout_s and not self._closed:
                    return False
                self._changed.wait_for(
                    lambda: self._closed or not self._block_timeout_s or self._fits(sealed),
                    self._block_timeout_s,
                )
            self._sealing -= 1
            try:
                kept = self._queue_or_drop(sealed)
            except Exception as error:
                # A fault of this package: it may cost a trajectory, which is counted, and neither
                # the books nor the application. Said once, since it may meet every one.
                if self._states.set("agent.put", "failed", level=logging.ERROR, error=error):
                    logger.exception("agent.put_failed")
                kept = False
            if not kept:
                self._dropped += 1
            self._changed.notify_all()
            return True

    def _queue_or_drop(self, sealed: Sealed) -> bool:
        """Whether it is queued; older ones may have made room for it."""
        if self._limits.drop_policy == "drop_oldest" and sealed.size_bytes <= self._max_bytes:
            self._make_room(sealed)
        if not self._closed and self._fits(sealed) and self._keep(sealed):
            return True
        if self._journal:
            self._journal.rejected(1)
        return False

    @property
    def _max_bytes(self) -> int:
        limits = self._limits
        if self._journal is None:
            return limits.max_bytes
        return min(limits.spool_bytes, max(self._spool_room, limits.max_bytes))

    @property
    def _spool_room(self) -> int:
        return max(self._limits.spool_bytes - self._taken_bytes, 0)

    def _fits(self, sealed: Sealed) -> bool:
        most = self._limits.max_entries
        if self._journal:
            most = max(most, self._spool_room // SMALL_BYTES)
        size = self._queued_bytes + sealed.size_bytes
        return len(self._queue) < most and size <= self._max_bytes

    def _make_room(self, sealed: Sealed) -> None:
        saved = []
        while not self._fits(sealed):
            item = self._pop()
            self._dropped += 1
            if item.ordinal is not None:
                saved.append(item.ordinal)
            elif self._journal:
                self._journal.rejected(1)
        if self._journal and saved:
            self._journal.dropped(saved)

    def _keep(self, sealed: Sealed) -> bool:
        """Queue it in the spool and, as far as there is room, in memory; False if in neither."""
        ordinal = self._save(sealed)
        held = (
            self._held_entries < self._limits.max_entries
            and self._held_bytes + sealed.size_bytes <= self._limits.max_bytes
        )
        if ordinal is None and not held:
            return False
        if held:
            self._held_entries += 1
            self._held_bytes += sealed.size_bytes
        item = _Queued(sealed.size_bytes, sealed.fields if held else None, ordinal)
        self._queue.append(item)
        self._queued_bytes += sealed.size_bytes
        return True

    def _save(self, sealed: Sealed) -> int | None:
        """Its ordinal in the spool, None if it is not there."""
        if self._journal is None:
            return None
        if self._queued_bytes + sealed.size_bytes > self._spool_room:
            self._journal.refused(self._taken_bytes)
            return None
        return self._journal.sealed(sealed.fields)

    def _pop(self) -> _Queued:
        item = self._queue.popleft()
        self._queued_bytes -= item.size_bytes
        if item.fields is not None:
            self._held_entries -= 1
            self._held_bytes -= item.size_bytes
        return item

    # -- the sender's side ------------------------------------------------------------------------

    def take(self, max_entries: int, max_bytes: int) -> list[Offered]:
        """The oldest entries with their numbers; at least one if there is any.

        Raises:
            SpoolError: If the numbers cannot be written down; nothing was taken.
        """
        with self._changed:
            # Once closed, what is queued is the spool's: the next agent may give these numbers.
            wanted = [] if self._closed else self._oldest(max_entries, max_bytes)
        # Reading from disk takes time, and the application may want to put something meanwhile.
        loaded = [(item, item.fields or self._load(item)) for item in wanted]
        with self._changed:
            before = self._dropped
            taken = [] if self._closed else self._number(loaded)
            lost = self._dropped - before
            self._unanswered += len(taken)
            self._changed.notify_all()
        if lost:
            log_event(logger, logging.ERROR, "agent.spool_lost", trajectories=lost)
        return taken

    def _oldest(self, max_entries: int, max_bytes: int) -> list[_Queued]:
        found: list[_Queued] = []
        for item in islice(self._queue, max_entries):
            max_bytes -= item.size_bytes
            if found and max_bytes < 0:
                break
            found.append(item)
        return found

    def _load(self, item: _Queued) -> Fields | None:
        journal = self._journal
        if journal is None or item.ordinal is None:
            return None
        try:
            return journal.read(item.ordinal)
        except SpoolError:
            return None  # or dropped meanwhile; `take` finds out

    def _number(self, loaded: Sequence[tuple[_Queued, Fields | None]]) -> list[Offered]:
        """Give numbers to those that are still queued; the drop policy may have had the oldest."""
        oldest = self._queue[0] if self._queue else None
        still = list(dropwhile(lambda pair: pair[0] is not oldest, loaded))
        fields_of = dict(still)
        taken: list[Offered] = []
        for kind, run in groupby(still, _how_to_number):
            items = [item for item, _ in run]
            if kind == "damaged":
                # Written and cannot be read back: the disk's fault, and a loss that counts.
                self._dropped += len(items)
                if self._journal:
                    self._journal.dropped([item.ordinal for item in items if item.ordinal])
            else:
                try:
                    self._write_down(items)
                except SpoolError:
                    if not taken:
                        raise
                    break
            for item in items:
                self._pop()
                if (fields := fields_of[item]) is not None:
                    self._issued += 1
                    taken.append(Offered(self._issued, fields, item.size_bytes))
        return taken

    def _write_down(self, items: Sequence[_Queued]) -> None:
        """Their numbers, the next ones; all in one record, since each may wait for the disk."""
        if self._journal is None:
            return
        ordinals = [item.ordinal for item in items if item.ordinal is not None]
        if ordinals:
            self._journal.offered(self._issued + 1, ordinals)
        else:
            self._journal.offered_unsaved(self._issued + 1)

    def answered(self, count: int) -> None:
        """Note that the broker answered `count` offered entries; negative: they are unanswered."""
        with self._changed:
            self._unanswered -= count
            self._changed.notify_all()

    def released(self, floor: int) -> None:
        """Note that numbers below `floor` are at the broker for good."""
        with self._changed:
            if self._journal:
                self._journal.floor(floor)

    # -- for both ---------------------------------------------------------------------------------

    def counts(self) -> OutboxCounts:
        """The books."""
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
                spooled=self._journal is not None,
                unsaved=self._journal.unsaved if self._journal else 0,
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
        """Take no more: what is put from now on is dropped, and counted.

        What is queued in memory alone is dropped as well; a spool keeps it for the next agent.
        """
        with self._changed:
            self._closed = True
            kept: list[_Queued] = []
            while self._queue:
                item = self._pop()
                if item.ordinal is not None:
                    kept.append(item)
                    continue
                self._dropped += 1
                if self._journal:
                    self._journal.rejected(1)
            # No longer to be sent by this agent, and still in its books.
            self._queue = deque(kept)
            self._queued_bytes = sum(item.size_bytes for item in kept)
            self._changed.notify_all()

    @property
    def needed(self) -> bool:
        """Whether the spool holds anything that a later agent has to finish."""
        with self._changed:
            return self._journal is not None and self._journal.needed

    def close_journal(self, *, told: bool) -> None:
        """Give the spool up; from now on it is another agent's, if anything in it is needed.

        Args:
            told: The broker knows how the books ended. What nobody has told is needed: the next
                agent tells it.
        """
        with self._changed:
            self._closed = True
            journal, self._journal = self._journal, None
            if journal is not None:
                # Where nothing ever happened there is nothing to tell.
                journal.close(remove=not journal.needed and (told or not self._accepted))


def _size(fields: Fields) -> int:
    return sum(len(name) + len(value) for name, value in fields)


def _how_to_number(pair: tuple[_Queued, Fields | None]) -> object:
    """What can be written down together: trajectories of the spool; the others one by one."""
    item, fields = pair
    if fields is None:
        return "damaged"
    return "saved" if item.ordinal is not None else item
