"""What lies in a spool's files, and what dead agents' files take of the disk.

A dead agent's folder stays until a broker has heard of its end. In an outage there may be many of
them, so each is cut down to what is used in it, and what is left counts.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Final

from rl4sys_stream.agent.spool.folder import Orphans, SpoolFolder
from rl4sys_stream.agent.spool.records import MAGIC, Record, SpoolState, decode_state, scan
from rl4sys_stream.agent.spool.segment import Segment
from rl4sys_stream.agent.spool.state import apply_record
from rl4sys_stream.errors import WireError
from rl4sys_stream.telemetry import log_event

__all__ = ["is_blank", "last_state", "records", "tidy"]

logger = logging.getLogger("rl4sys_stream.agent")

UNUSED_BYTES: Final = 64
"""So many zeros at a file's end are room that was taken and never used."""
CHUNK_BYTES: Final = 1 << 16
SHORT_BYTES: Final = 4096
"""A file of this size is read whole, to see whether anything ever happened."""


def records(segment: Segment) -> Iterator[Record]:
    """Those of `segment` up to the first that is not whole. Raises OSError."""
    try:
        yield from scan(segment.read, segment.size)
    except WireError as error:
        log_event(logger, logging.ERROR, "agent.spool_unreadable", file=segment.path, error=error)


def last_state(segments: Sequence[Segment]) -> tuple[SpoolState | None, Segment | None]:
    """The state at the end of the newest segment that has one, and that segment."""
    for segment in reversed(segments):
        state = None
        try:
            for record in records(segment):
                if state is None:
                    state = decode_state(record.payload)
                else:
                    apply_record(state, record)
        except WireError as error:
            log_event(logger, logging.ERROR, "agent.spool_damaged", file=segment.path, error=error)
        if state is not None:
            return state, segment
    return None, None


def is_blank(folder: SpoolFolder) -> bool:
    """Whether nothing was ever written there: its agent was killed while it made it."""
    try:
        for path in folder.segments():
            segment = Segment.open(path)
            try:
                if _written_bytes(segment) > len(MAGIC):
                    return False
            finally:
                segment.close()
    except OSError:
        return False
    return True


def tidy(orphans: Orphans) -> int:
    """Cut down what dead agents left and nobody has adopted; how many bytes that is then."""
    total = 0
    for folder in orphans:
        try:
            total += _tidied(folder)
        except OSError as error:
            # On the way of somebody who only wants to know; whoever adopts it looks closer.
            log_event(logger, logging.DEBUG, "agent.spool_untidy", folder=folder.path, error=error)
        finally:
            folder.release()
    return total


def _tidied(folder: SpoolFolder) -> int:
    paths = folder.segments()
    if not paths:
        return 0  # whoever looks for orphans removes it
    segment = Segment.open(paths[-1])
    try:
        tail = segment.read(max(segment.size - UNUSED_BYTES, 0), UNUSED_BYTES)
        if not any(tail) or segment.size <= SHORT_BYTES:
            state, _ = last_state([segment])
            read, written = _readable_bytes(segment), _written_bytes(segment)
            if state is not None and not state.accepted and len(paths) == 1 and written <= read:
                # Nothing ever happened, so there is nothing that a broker has to hear.
                folder.remove()
                return 0
            if state is not None and max(read, written) < segment.size:
                os.truncate(segment.path, max(read, written))
    finally:
        segment.close()
    return sum(path.stat().st_size for path in paths)


def _readable_bytes(segment: Segment) -> int:
    """Up to the end of the last whole record."""
    end = len(MAGIC)
    for record in records(segment):
        end = record.offset + len(record.payload)
    return end


def _written_bytes(segment: Segment) -> int:
    """Up to the last byte that is not zero: what cannot be read may still be of use to people."""
    end = segment.size
    while end:
        start = max(end - CHUNK_BYTES, 0)
        if found := segment.read(start, end - start).rstrip(b"\0"):
            return start + len(found)
        end = start
    return 0
