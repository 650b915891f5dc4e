"""Reading ahead: one thread takes entries from the stream while the learner computes.

Everything that was delivered and is not settled yet is *in hand*. The pending list of the consumer
group holds the same entries at the broker; where the two differ (a paused worker read some under
the shared consumer name, a reply was lost), the pending list is read again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rl4sys_stream.broker.stream import Entry, TrajectoryStream, entry_order
from rl4sys_stream.errors import BrokerError, StreamError, WireError, WireFormatError
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.trajectory import (
    EntryAddress,
    Trajectory,
    TrajectorySpec,
    decode_address,
    decode_trajectory,
)

__all__ = ["Candidate", "Intake", "examine"]

T = TypeVar("T")

logger = logging.getLogger("rl4sys_stream.worker")

READ_BYTES = 64 << 20
"""Entries asked for at once have this many bytes at most, where none is above its limit."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One entry after decoding.

    Attributes:
        entry_id: In the stream.
        size_bytes: Of its fields.
        address: Agent, number and floor; None where even these do not decode.
        trajectory: What it holds, None where it does not decode.
        reason: Why it does not, "".
    """

    entry_id: str
    size_bytes: int
    address: EntryAddress | None = None
    trajectory: Trajectory | None = None
    reason: str = ""


def examine(entry: Entry, spec: TrajectorySpec) -> Candidate:
    """Decode `entry`; never raises for what it holds."""
    size = entry.size_bytes
    if not entry.fields:
        return Candidate(entry.entry_id, 0, reason="deleted")
    address: EntryAddress | None = None
    try:
        address = decode_address(entry.fields)
        if address.floor > address.seq:
            raise WireFormatError(f"floor {address.floor} is above its own number {address.seq}")
        return Candidate(entry.entry_id, size, address, decode_trajectory(entry.fields, spec))
    except WireError as error:
        return Candidate(entry.entry_id, size, address, reason=f"{type(error).__name__}: {error}")


class Intake:
    """Entries in hand, in stream order, bounded in number and bytes."""

    def __init__(
        self,
        stream: TrajectoryStream,
        spec: TrajectorySpec,
        *,
        max_entries: int,
        max_bytes: int,
        read_count: int,
        block_ms: int,
    ) -> None:
        """Prepare; `start` begins to read.

        Args:
            stream: Of the client; its broker must be used by nobody who blocks.
            spec: What a trajectory of the client looks like.
            max_entries: Reading pauses while that many entries are in hand.
            max_bytes: Reading pauses while they have that many bytes.
            read_count: Entries asked for in one read; fewer where READ_BYTES would not hold as many
                of the largest permitted ones. An entry above its limit comes whole all the same,
                since a stream has no sizes to ask for and no parts to read.
            block_ms: Longest wait of one read.
        """
        self._stream = stream
        self._spec = spec
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._page = read_count
        self._max_entry_bytes = spec.limits.max_entry_bytes
        self._read_count = max(1, min(read_count, READ_BYTES // self._max_entry_bytes))
        self._oversized = False
        self._block_ms = block_ms
        self._state = threading.Condition()
        self._waiting: deque[Candidate] = deque()
        self._in_hand: dict[str, int] = {}
        self._bytes = 0
        self._stop = False
        self._error: Exception | None = None
        # Rescans and commits exclude each other: an entry that is settled between the reading of
        # the pending list and the look at what is in hand would be taken for a forgotten one.
        self._settling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rl4sys-intake", daemon=True)

    def start(self) -> None:
        """Read the pending entries of the last worker first, then new ones."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; what is in hand stays pending at the broker."""
        with self._state:
            self._stop = True
            self._state.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=self._block_ms / 1000 + 5)

    def take(self, timeout_s: float) -> Candidate | None:
        """The next candidate, None if there is none within `timeout_s`.

        Raises:
            BrokerError: If reading failed; the intake has ended.
        """
        with self._state:
            self._state.wait_for(lambda: self._waiting or self._error, timeout_s)
            if self._waiting:
                candidate = self._waiting.popleft()
                # The reader may wait for room; a rollout may need all that there is room for.
                self._state.notify_all()
                return candidate
            if self._error:
                raise self._error
            return None

    @property
    def waiting(self) -> int:
        """Candidates that nobody has taken."""
        return len(self._waiting)

    def waiting_steps(self) -> int:
        """Environment steps in them; those that do not decode have none."""
        with self._state:
            trajectories = [candidate.trajectory for candidate in self._waiting]
        return sum(len(t.rewards) for t in trajectories if t is not None)

    @property
    def in_hand(self) -> int:
        """Entries delivered and not settled, as far as this process knows."""
        return len(self._in_hand)

    def settle(self, action: Callable[[], T], settled: Iterable[str]) -> T:
        """Run `action` (a commit) and forget the entries that it settled."""
        with self._settling:
            result = action()
            with self._state:
                for entry_id in settled:
                    self._bytes -= self._in_hand.pop(entry_id, 0)
                self._state.notify_all()
        return result

    def rescan(self, before: str) -> list[Candidate]:
        """Read the pending list again, and take all that is older than entry `before` at once.

        Also what waits already: it may have been found only a moment ago.

        Raises:
            BrokerError: Nothing was taken.
        """
        limit = entry_order(before)
        self._read_pending_again(until=lambda page: entry_order(page[0].entry_id) >= limit)
        with self._state:
            count = sum(1 for c in self._waiting if entry_order(c.entry_id) < limit)
            return [self._waiting.popleft() for _ in range(count)]

    def look_for_forgotten(self, pending: int) -> None:
        """Read the pending list again if it is longer than what is in hand.

        As far as there is room: what is left is found the next time, or by `rescan`.

        Args:
            pending: Its length, as the broker just said.

        Raises:
            BrokerError: Safe to retry.
        """
        if pending > len(self._in_hand):
            self._read_pending_again(until=lambda _: not self._has_room())

    def _read_pending_again(self, *, until: Callable[[list[Entry]], bool]) -> None:
        found = 0
        with self._settling:
            for page in self._pending():
                found += self._queue(page)
                if until(page):
                    break
        if found:
            log_event(logger, logging.INFO, "worker.rescan", found=found)

    def _pending(self) -> Iterator[list[Entry]]:
        return self._stream.read_pending(
            page=self._page, group=self._read_count, known=self._in_hand
        )

    def _read_new(self) -> list[Entry]:
        # Where one is above its limit, the next may be as well: then one at a time.
        count = 1 if self._oversized else self._read_count
        entries = self._stream.read_new(count=count, block_ms=self._block_ms)
        if entries:
            self._oversized = max(e.size_bytes for e in entries) > self._max_entry_bytes
        return entries

    def _queue(self, entries: Iterable[Entry]) -> int:
        """Put entries that are not in hand where `take` finds them; how many there were."""
        with self._state:
            fresh = [entry for entry in entries if entry.entry_id not in self._in_hand]
            for entry in fresh:
                self._in_hand[entry.entry_id] = entry.size_bytes
                self._bytes += entry.size_bytes
        candidates = [examine(entry, self._spec) for entry in fresh]
        if not candidates:
            return 0
        with self._state:
            late = self._waiting and (
                entry_order(candidates[0].entry_id) < entry_order(self._waiting[-1].entry_id)
            )
            self._waiting.extend(candidates)
            if late:
                # What says a floor must not be looked at before what was appended before it.
                ordered = sorted(self._waiting, key=lambda c: entry_order(c.entry_id))
                self._waiting = deque(ordered)
            self._state.notify_all()
        return len(candidates)

    def _wait_for_room(self) -> bool:
        """Block while too much is in hand; False when stopped.

        What nobody has taken counts, not what the learner holds: a rollout may need more entries
        than fit in here, and would wait for ever.
        """
        with self._state:
            self._state.wait_for(lambda: self._stop or self._has_room())
            return not self._stop

    def _has_room(self) -> bool:
        if not self._waiting:
            return True
        return len(self._waiting) < self._max_entries and self._bytes < self._max_bytes

    def _run(self) -> None:
        try:
            self._stream.ensure_group()
            if not self._read_what_was_left():
                return
            while self._wait_for_room():
                entries = self._read_new()
                self._queue(entries)
                if not entries:
                    self.look_for_forgotten(self._stream.pending_count())
        except BrokerError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("worker.intake_failed")
            self._fail(StreamError(f"intake failed: {error!r}"))

    def _read_what_was_left(self) -> bool:
        """The pending entries of the last worker; False when stopped."""
        pages = self._pending()
        while True:
            with self._settling:
                page = next(pages, None)
                if page is None:
                    return True
                self._queue(page)
            if not self._wait_for_room():
                return False

    def _fail(self, error: Exception) -> None:
        with self._state:
            self._error = error
            self._state.notify_all()
