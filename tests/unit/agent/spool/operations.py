"""Random lives of a journal: what an outbox may ask of it, in an order that an outbox may ask."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st

from rl4sys_stream.agent.spool.folder import SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.agent.spool.records import HEADER_BYTES, Fields, SpoolState, encode_state, scan
from rl4sys_stream.agent.spool.state import live_runs
from rl4sys_stream.errors import SpoolError
from tests.unit.agent.rig import ManualClock

Operation = tuple[str, int]
NAMES = ("end", "accept", "seal", "quarantine", "reject", "drop", "offer", "offer_unsaved", "floor")

operation = st.tuples(st.sampled_from(NAMES), st.integers(1, 3))


@contextmanager
def small_segments() -> Iterator[pytest.MonkeyPatch]:
    """Segments of a few records, so that a short life has many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rl4sys_stream.agent.spool.journal.SEGMENT_BYTES", 1024)
        patch.setattr("rl4sys_stream.agent.spool.journal.RESERVE_BYTES", 128)
        yield patch


class Life:
    """A journal with what its owner knows of it."""

    def __init__(self, base: Path, *, fsync: bool = False) -> None:
        self.clock = ManualClock()
        self.journal = SpoolJournal.create(base, "agent", fsync=fsync, clock=self.clock)
        self.folder = base / "agent"
        self.written: dict[int, Fields] = {}
        self.sealed = self.unsaved = 0
        self.numbers: dict[int, int | None] = {}
        """number -> ordinal, None for one that is in memory only"""

    @property
    def state(self) -> SpoolState:
        """The books in memory."""
        return self.journal.state

    def do(self, operation: Operation) -> None:
        """Carry an operation out, as far as it is possible now."""
        name, count = operation
        getattr(self, f"_{name}")(count)

    def _end(self, count: int) -> None:
        for _ in range(count):
            self._accept(1)
            self._seal(1)

    def _accept(self, count: int) -> None:
        for _ in range(count):
            self.journal.accepted(5)

    def _seal(self, count: int) -> None:
        if self._waiting():
            self.sealed += 1
            fields = ((b"obs", bytes([self.sealed % 251]) * (40 * count)),)
            attempt = self.state.next_ordinal
            assert attempt not in self.written, "an ordinal names one trajectory"
            # Also what the disk did not confirm: it may be there all the same.
            self.written[attempt] = fields
            ordinal = self.journal.sealed(fields)
            assert ordinal in {None, attempt}
            self.unsaved += ordinal is None

    def _quarantine(self, _: int) -> None:
        if self._waiting():
            self.journal.quarantined(1)

    def _reject(self, _: int) -> None:
        if self.unsaved:
            self.unsaved -= 1
            self.journal.rejected(1)

    def _drop(self, count: int) -> None:
        if ordinals := self._queued()[:count]:
            self.journal.dropped(ordinals)

    def _offer(self, count: int) -> None:
        for ordinal in self._queued()[:count]:
            number = self.state.issued + 1
            try:
                self.journal.offered(number, [ordinal])
            except SpoolError:
                return
            self.numbers[number] = ordinal

    def _offer_unsaved(self, _: int) -> None:
        if self.unsaved:
            number = self.state.issued + 1
            try:
                self.journal.offered_unsaved(number)
            except SpoolError:
                return
            self.unsaved -= 1
            self.numbers[number] = None

    def _floor(self, count: int) -> None:
        self.journal.floor(min(self.state.floor + 2 * count, self.state.issued + 1))

    def _waiting(self) -> int:
        return self.state.sealing - self.unsaved

    def _queued(self) -> list[int]:
        return [first + i for first, length in self.state.queued for i in range(length)]

    def files(self) -> dict[str, bytes]:
        """The segments as they lie on the disk."""
        return {path.name: path.read_bytes() for path in self.folder.glob("*.seg")}

    def die(self) -> None:
        """As a kill would: nothing is written any more, and the lock is free."""
        self.journal.close(remove=False)


def used(segment: bytes) -> int:
    """Bytes of a segment up to the end of its last whole record."""
    records = scan(lambda offset, length: segment[offset : offset + length], len(segment))
    return max((record.offset + len(record.payload) for record in records), default=0)


def first_cut(segment: bytes, before: bytes | None) -> int:
    """Where the bytes begin that were written since `before`."""
    return 0 if before is None else max(used(before), HEADER_BYTES)


def lay_out(base: Path, files: dict[str, bytes]) -> Path:
    """A dead agent's folder with these segments in it."""
    folder = base / "agent"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "lock").touch()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@contextmanager
def recovered(folder: Path) -> Iterator[SpoolJournal | None]:
    """What the next agent finds in a dead one's folder."""
    found = SpoolFolder.adopt(folder)
    assert found is not None
    journal = SpoolJournal.recover(found, fsync=False, clock=ManualClock())
    yield journal
    if journal is None:
        found.release()
    else:
        journal.close(remove=False)


def books(state: SpoolState) -> bytes:
    """The books as a successor must find them: what waited for its rewards is given up.

    A successor seals nothing, so the next ordinal does not matter.
    """
    copy = SpoolState(**{name: getattr(state, name) for name in state.__struct_fields__})
    copy.quarantined, copy.sealing, copy.next_ordinal = copy.quarantined + copy.sealing, 0, 0
    return encode_state(copy)


def balance(state: SpoolState) -> int:
    """0 if every accepted trajectory is in one place."""
    queued = sum(length for _, length in state.queued)
    places = state.sealing + queued + state.issued + state.dropped + state.quarantined
    return state.accepted - places


def check_bytes(journal: SpoolJournal, written: dict[int, Fields]) -> None:
    """Every trajectory that is still needed is read back as it was written."""
    for first, length in live_runs(journal.state):
        for ordinal in range(first, first + length):
            assert journal.read(ordinal) == written[ordinal]
