"""The spool of one agent: its books and its trajectories, in segment files."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from rl4sys_stream.agent.spool.folder import SpoolFolder
from rl4sys_stream.agent.spool.records import (
    HEADER_BYTES,
    Fields,
    Kind,
    SpoolState,
    count_payload,
    decode_trajectory_record,
    encode_offer,
    encode_record,
    encode_state,
    encode_trajectory_record,
)
from rl4sys_stream.agent.spool.remains import last_state, records
from rl4sys_stream.agent.spool.segment import RESERVE_BYTES, Segment
from rl4sys_stream.agent.spool.state import (
    drop,
    is_in,
    keep,
    live_runs,
    offer,
    offer_unsaved,
    raise_floor,
    seal,
)
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import SpoolError, WireError
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["SpoolJournal"]

logger = logging.getLogger("rl4sys_stream.agent")

SEGMENT_BYTES: Final = 4 << 20
"""Room that is taken at a time, at most."""
SEGMENTS: Final = 16
"""A spool is at least so many segments, so that what one takes too much is little beside it."""
RETRY_S: Final = 1.0
"""A disk without room is asked again this often."""


class SpoolJournal:
    """Writes down what happens to an agent's trajectories before it counts as having happened.

    The owner serialises all calls but `read`. On a disk without room, trajectories are refused and
    their owner keeps them in memory; the books still find room, or are made good with the next
    segment.
    """

    def __init__(
        self,
        folder: SpoolFolder,
        state: SpoolState,
        *,
        fsync: bool,
        clock: Clock,
        segment_bytes: int = 0,
    ) -> None:
        """Go on from `state`; use `create` or `recover`.

        Args:
            folder: Locked by this process.
            state: Of the books.
            fsync: Whether the disk must have a trajectory before its end is marked, and a number
                before it is offered: against power loss, not only against the end of the process.
            clock: For the pauses between questions to a full disk.
            segment_bytes: Room to take at a time; 0: what the books need.
        """
        self._segment_bytes = segment_bytes
        self._clock = clock
        self.folder = folder
        self.state = state
        self._fsync = fsync
        self._places: dict[int, tuple[Segment, int, int]] = {}
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._books: Segment | None = None  # the newest one that begins with a whole state
        self._behind = False
        self._retry_at = self._remove_at = 0.0
        self._states = StateLog(logger, agent=state.agent_id)
        self.unsaved = 0
        """Trajectories for which there was no room."""

    @classmethod
    def create(
        cls,
        base: Path,
        agent_id: str,
        *,
        fsync: bool,
        clock: Clock,
        spool_bytes: int = SEGMENTS * SEGMENT_BYTES,
    ) -> Self:
        """The spool of a new agent.

        Args:
            base: Folder of the client's spools.
            agent_id: Names the agent's own folder in it.
            fsync: See the class.
            clock: See the class.
            spool_bytes: What the spool may hold; a small one takes its room in small pieces.

        Raises:
            SpoolError: If it cannot be made.
        """
        folder = SpoolFolder.create(base, agent_id)
        state = SpoolState(agent_id=agent_id, started_ms=clock.wall_ms())
        room = min(SEGMENT_BYTES, spool_bytes // SEGMENTS)
        journal = cls(folder, state, fsync=fsync, clock=clock, segment_bytes=room)
        try:
            journal._begin_segment(0)
            if fsync:
                # The folder's own name has to survive a power loss, too.
                _sync_folder(base)
                _sync_folder(base.parent)
        except OSError as error:
            journal.close(remove=True)
            raise SpoolError(
                f"cannot keep a spool in {base}: {error}; make room there, give agent.spool_dir "
                "another folder, or leave it out"
            ) from error
        return journal

    @classmethod
    def recover(cls, folder: SpoolFolder, *, fsync: bool, clock: Clock) -> Self | None:
        """The spool that a dead agent left, None if there is nothing in it that can be read.

        What had ended and never got its rewards is quarantined: they died with the process.

        Raises:
            SpoolError: If the disk does not let it be read; trying again later may work.
        """
        segments: list[Segment] = []
        try:
            for path in folder.segments():
                segments.append(Segment.open(path))  # noqa: PERF401 - those open so far are closed
            journal = cls._rebuild(folder, segments, fsync=fsync, clock=clock)
        except OSError as error:
            _close_all(segments)
            raise SpoolError(f"cannot read {folder.path}: {error}") from error
        if journal is None:
            _close_all(segments)
        return journal

    @classmethod
    def _rebuild(
        cls, folder: SpoolFolder, segments: list[Segment], *, fsync: bool, clock: Clock
    ) -> Self | None:
        state, books = last_state(segments)
        if state is None:
            return None
        journal = cls(folder, state, fsync=fsync, clock=clock)
        journal._books = books
        journal._locate(segments)
        state.quarantined += state.sealing
        state.sealing = 0
        journal._behind = True
        return journal

    def _locate(self, segments: list[Segment]) -> None:
        """Find the trajectories that are still needed; forget those that cannot be read."""
        wanted = live_runs(self.state)
        for segment in segments:
            for record in records(segment):
                if record.kind is not Kind.SEALED:
                    continue
                ordinal = int.from_bytes(record.payload[:8], "little")
                if is_in(wanted, ordinal) and ordinal not in self._places:
                    self._places[ordinal] = (segment, record.offset, len(record.payload))
                    segment.live += 1
        self._segments = segments
        self._remove_dead()
        if lost := sum(length for _, length in wanted) - len(self._places):
            log_event(
                logger,
                logging.ERROR,
                "agent.spool_lost",
                agent=self.state.agent_id,
                count=lost,
            )
            keep(self.state, self._places)

    # -- what happens ---------------------------------------------------------------------------

    def accepted(self, steps: int) -> None:
        """A trajectory of `steps` steps has ended."""
        self.state.accepted += 1
        self.state.sealing += 1
        self.state.steps += steps
        self._note(Kind.ACCEPTED, count_payload(steps))

    def sealed(self, fields: Fields) -> int | None:
        """Keep an accepted trajectory; its ordinal, None if there is no room for it."""
        # One for each attempt: what a failed one left on the disk must not pass for another's.
        ordinal = self.state.next_ordinal
        self.state.next_ordinal += 1
        payload = encode_trajectory_record(ordinal, fields)
        try:
            segment, start = self._append(Kind.SEALED, payload, reserve=RESERVE_BYTES)
        except OSError as error:
            self.unsaved += 1
            self._states.set("agent.spool", "no_room", error=error)
            return None
        self._states.set("agent.spool", "written", level=logging.DEBUG)
        seal(self.state, ordinal)
        self._places[ordinal] = (segment, start + HEADER_BYTES, len(payload))
        segment.live += 1
        return ordinal

    def refused(self, taken_bytes: int) -> None:
        """A trajectory lives in memory alone, since dead agents' spools leave no room for it."""
        self.unsaved += 1
        self._states.set("agent.spool", "no_room", error=f"dead agents left {taken_bytes} bytes")

    def quarantined(self, count: int) -> None:
        """That many accepted trajectories were given up."""
        self.state.sealing -= count
        self.state.quarantined += count
        self._note(Kind.QUARANTINED, count_payload(count))

    def rejected(self, count: int) -> None:
        """That many accepted trajectories were dropped and had not been written."""
        self.state.sealing -= count
        self.state.dropped += count
        self._note(Kind.REJECTED, count_payload(count))

    def dropped(self, ordinals: Sequence[int]) -> None:
        """The oldest queued trajectories, `ordinals`, were dropped."""
        drop(self.state, len(ordinals))
        self._note(Kind.DROPPED, count_payload(len(ordinals)))
        self._let_go(ordinals)

    def offered(self, first_number: int, ordinals: Sequence[int]) -> None:
        """The oldest queued trajectories, `ordinals`, are about to be offered under numbers.

        Raises:
            SpoolError: If that cannot be written down; then they must not be offered.
        """
        self._require(Kind.OFFERED, encode_offer(first_number, ordinals))
        offer(self.state, first_number, ordinals)

    def offered_unsaved(self, number: int) -> None:
        """A trajectory that is not in the spool is about to be offered as `number`.

        Raises:
            SpoolError: As for `offered`.
        """
        self._require(Kind.OFFERED_UNSAVED, count_payload(number))
        offer_unsaved(self.state, number)

    def floor(self, floor: int) -> None:
        """All numbers below `floor` are at the broker for good."""
        if floor <= self.state.floor:
            return
        past = [
            ordinal + i
            for number, ordinal, length in self.state.offered
            for i in range(min(max(floor - number, 0), length))
        ]
        raise_floor(self.state, floor)
        self._note(Kind.FLOOR, count_payload(floor))
        self._let_go(past)

    # -- reading --------------------------------------------------------------------------------

    def size_bytes(self, ordinal: int) -> int:
        """About the size of a trajectory that is still needed: that of its record."""
        return self._places[ordinal][2]

    def read(self, ordinal: int) -> Fields:
        """A trajectory that is still needed. Any thread may call it.

        Raises:
            SpoolError: If it cannot be read back as it was written.
        """
        try:
            segment, offset, length = self._places[ordinal]
            raw = segment.read(offset - HEADER_BYTES, HEADER_BYTES + length)
            if encode_record(Kind.SEALED, raw[HEADER_BYTES:]) != raw:
                raise SpoolError(f"trajectory {ordinal} of {self.folder.path} is damaged")
            found, fields = decode_trajectory_record(raw[HEADER_BYTES:])
        except (OSError, KeyError, WireError) as error:
            raise SpoolError(
                f"trajectory {ordinal} of {self.folder.path} cannot be read: {error}"
            ) from error
        if found != ordinal:
            raise SpoolError(f"{self.folder.path} holds trajectory {found} in place of {ordinal}")
        return fields

    # -- the end --------------------------------------------------------------------------------

    @property
    def needed(self) -> bool:
        """Whether a later agent has anything to do for this one."""
        return bool(self.state.offered or self.state.queued or self.state.sealing)

    def close(self, *, remove: bool) -> None:
        """End it. What is kept waits for an agent that adopts it.

        Args:
            remove: Nothing is needed any more.
        """
        for segment in self._segments:
            segment.close()
        if remove:
            self.folder.remove()
        else:
            self.folder.release()

    # -- segments -------------------------------------------------------------------------------

    def _note(self, kind: Kind, payload: bytes) -> None:
        """Write a record of the books; the state has changed, so the next segment has it too."""
        record = encode_record(kind, payload)
        try:
            if self._behind or self._current is None or not self._current.fits(len(record)):
                self._begin_segment(0)  # with the changed state: the record would count it twice
            else:
                self._current.write(record)
        except OSError as error:
            self._behind = True
            self._states.set("agent.spool", "books_behind", error=error)

    def _require(self, kind: Kind, payload: bytes) -> None:
        try:
            self._append(kind, payload)
        except OSError as error:
            raise SpoolError(
                f"cannot write to {self.folder.path}: {error}; nothing is sent until it can be, "
                "because a number that is not written down could be given twice"
            ) from error

    def _append(self, kind: Kind, payload: bytes, *, reserve: int = 0) -> tuple[Segment, int]:
        record = encode_record(kind, payload)
        segment = self._current
        if self._behind or segment is None or not segment.fits(len(record), reserve=reserve):
            segment = self._begin_segment(len(record))
        start = segment.write(record)
        if self._fsync:
            try:
                segment.sync()
            except OSError:
                # It counts as not written, so the next record has to take its place.
                segment.end = start
                raise
        return segment, start

    def _begin_segment(self, needed: int) -> Segment:
        """A new file that begins with the whole state.

        Raises:
            OSError: If there is no room; asked again only after a while, because it takes time.
        """
        now = self._clock.monotonic()
        if now < self._retry_at:
            raise OSError("there was no room a moment ago")
        number = self._segments[-1].number + 1 if self._segments else 1
        state = encode_record(Kind.STATE, encode_state(self.state))
        size = max(self._segment_bytes, len(state) + needed + 2 * RESERVE_BYTES)
        try:
            segment = self._create_segment(number, size, state)
        except OSError:
            self._retry_at = now + RETRY_S
            raise
        self._behind = False
        self._current = self._books = segment
        self._segments.append(segment)
        self._remove_dead()
        return segment

    def _create_segment(self, number: int, size: int, state: bytes) -> Segment:
        segment = Segment.create(self.folder.segment_path(number), size)
        try:
            segment.write(state)
            if self._fsync:
                segment.sync()
                _sync_folder(self.folder.path)
        except OSError:
            # Its state would hide whatever is still written to the segment before.
            try:
                segment.remove()
            except OSError:
                self._behind = True  # so nothing is, until its successor has a newer one
            raise
        return segment

    def _let_go(self, ordinals: Iterable[int]) -> None:
        for ordinal in ordinals:
            if place := self._places.pop(ordinal, None):
                place[0].live -= 1
        self._remove_dead()

    def _remove_dead(self) -> None:
        """Delete what holds neither a trajectory that is needed nor the newest state.

        Also while the books are behind: they may need the room that this makes. Should the process
        die before they are mended, its successor takes what was let go for damaged, and counts it.
        A folder that lets nothing be deleted is asked again after a while: what it holds too long
        costs room, and is no reason to fail whoever lets go.
        """
        dead = [one for one in self._segments if not one.live and one is not self._books]
        now = self._clock.monotonic()
        if not dead or now < self._remove_at:
            return
        removed = set()
        for segment in dead:
            try:
                segment.remove()
            except OSError as error:
                self._remove_at = now + RETRY_S
                self._states.set("agent.spool_removal", "refused", error=error)
                break
            removed.add(segment)
        else:
            self._states.set("agent.spool_removal", "accepted", level=logging.DEBUG)
        self._segments = [one for one in self._segments if one not in removed]


def _close_all(segments: Iterable[Segment]) -> None:
    for segment in segments:
        segment.close()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
