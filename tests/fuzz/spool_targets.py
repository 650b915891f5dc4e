"""Targets: an agent's spool, record by record and as a folder of hostile files."""

import os
import shutil
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import OutboxLimits
from rl4sys_stream.agent.spool.folder import SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.agent.spool.records import (
    MAGIC,
    Kind,
    SpoolState,
    count_payload,
    decode_state,
    encode_offer,
    encode_record,
    encode_state,
    encode_trajectory_record,
    scan,
)
from rl4sys_stream.agent.spool.state import apply_record
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import SpoolError, WireError
from rl4sys_stream.wire.trajectory import encode_trajectory
from tests.fuzz.containers import Fields, pack, unpack
from tests.fuzz.target import Target
from tests.unit.worker.entries import trajectory

__all__ = ["SPOOL_TARGETS"]

ENTRY = encode_trajectory(trajectory(3))
LIMITS = OutboxLimits(
    max_entries=100, max_bytes=1 << 20, drop_policy="drop_oldest", block_timeout_s=None
)
MAX_FILES = 6
MEMORY_DISK = Path("/dev/shm")


def _books() -> Fields:
    """Records as a life leaves them: two trajectories sealed, one offered, one dropped."""
    state = SpoolState(agent_id="agent-1", started_ms=1_700_000_000_000)
    records = [(Kind.STATE, encode_state(state))]
    for ordinal in (1, 2, 3):
        records.append((Kind.ACCEPTED, count_payload(12)))
        records.append((Kind.SEALED, encode_trajectory_record(ordinal, ENTRY)))
    records += [
        (Kind.OFFERED, encode_offer(1, [1])),
        (Kind.DROPPED, count_payload(1)),
        (Kind.ACCEPTED, count_payload(7)),
        (Kind.QUARANTINED, count_payload(1)),
        (Kind.ACCEPTED, count_payload(7)),
        (Kind.REJECTED, count_payload(1)),
        (Kind.ACCEPTED, count_payload(7)),
        (Kind.OFFERED_UNSAVED, count_payload(2)),
        (Kind.FLOOR, count_payload(1)),
    ]
    return tuple((bytes([kind]), payload) for kind, payload in records)


def _later() -> Fields:
    """A segment that begins with a state in full swing."""
    state = SpoolState(
        agent_id="agent-1",
        accepted=9,
        steps=100,
        sealing=1,
        issued=4,
        floor=2,
        next_ordinal=9,
        offered=[(2, 3, 2), (4, 6, 1)],
        queued=[(7, 2)],
    )
    sealed = [
        (bytes([Kind.SEALED]), encode_trajectory_record(ordinal, ENTRY)) for ordinal in (3, 7, 9)
    ]
    return (bytes([Kind.STATE]), encode_state(state)), *sealed


def _segment(records: Fields) -> bytes:
    """`records` (kind as the name) under checksums that are right: they are no secret."""
    parts = [MAGIC]
    for name, payload in records:
        kind = name[0] if name else 0
        # A kind that does not exist ends the segment; so does whatever follows it.
        parts.append(encode_record(kind, payload))  # type: ignore[arg-type]  # hostile on purpose
    return b"".join(parts)


def _replay(segment: bytes) -> None:
    state: SpoolState | None = None
    for record in scan(lambda at, length: segment[at : at + length], len(segment)):
        if state is None:
            state = decode_state(record.payload)
        else:
            apply_record(state, record)
    if state is not None:
        decode_state(encode_state(state))


def _decode_records(data: bytes) -> None:
    _replay(_segment(unpack(data)))


def _recover(data: bytes) -> None:
    """What an agent does with a dead one's folder; names of the container's fields are files."""
    base = Path(tempfile.mkdtemp(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None))
    try:
        path = base / "agent-1"
        path.mkdir()
        (path / "lock").touch()
        for name, value in unpack(data)[:MAX_FILES]:
            _put(path, name, value)
        folder = SpoolFolder.adopt(path)
        if folder is None:
            raise AssertionError("the folder was not adopted")
        try:
            _adopt(folder)
        finally:
            folder.release()
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _put(folder: Path, name: bytes, value: bytes) -> None:
    file = os.fsdecode(name.replace(b"/", b"_").replace(b"\0", b"_"))
    with suppress(OSError):
        if value.startswith(b"fifo"):
            os.mkfifo(folder / file)
        elif value.startswith(b"folder"):
            (folder / file).mkdir()
        elif value.startswith(b"sparse") and len(value) >= 14:
            with (folder / file).open("wb") as hole:
                hole.write(_segment(_books()))
                hole.truncate(min(struct.unpack_from("<Q", value, 6)[0], 1 << 40))
        elif value.startswith(b"raw:"):
            (folder / file).write_bytes(value[4:])
        else:
            (folder / file).write_bytes(_segment(unpack(value)))


def _adopt(folder: SpoolFolder) -> None:
    journal = SpoolJournal.recover(folder, fsync=False, clock=SystemClock())
    if journal is None:
        return
    outbox = Outbox(LIMITS)
    offered = outbox.attach(journal)
    for each in offered:
        if each.seq < 1:
            raise AssertionError("a number that no entry can have")
    counts = outbox.counts()
    owed = counts.sealing + counts.queued + counts.issued + counts.dropped + counts.quarantined
    if min(counts.accepted, counts.queued, counts.issued, counts.quarantined, owed) < 0:
        raise AssertionError(f"impossible books: {counts}")
    encode_state(journal.state)
    journal.close(remove=False)


def _folders() -> tuple[bytes, ...]:
    first, second = pack(_books()), pack(_later())
    return (
        pack(((b"00000001.seg", first), (b"00000002.seg", second))),
        pack(((b"00000001.seg", first), (b"2x.seg", second), (b"3.seg", b"folder"))),
        pack(((b"00000001.seg", first), (b"00000002.seg", b"raw:" + _segment(_books())[:-9]))),
        pack(((b"00000001.seg", first), (b"00000002.seg", b"fifo"))),
        pack(((b"00000001.seg", b"sparse" + struct.pack("<Q", 1 << 38)),)),
    )


SPOOL_TARGETS = (
    Target("spool_segment", _replay, WireError, (_segment(_books()), _segment(_later()))),
    Target(
        "spool_records", _decode_records, WireError, (pack(_books()), pack(_later())), fields=True
    ),
    Target(
        "spool_folder",
        _recover,
        SpoolError,
        _folders(),
        fields=True,
        fixed_bytes=8 << 20,
    ),
)
