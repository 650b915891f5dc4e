"""The trajectory stream of one client, from the worker's side."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.scripts import run_script
from rl4sys_stream.broker.translation import translate

__all__ = ["Backlog", "Entry", "TrajectoryStream", "entry_order"]

CONSUMER = GROUP
"""One fixed consumer: the next worker reads the pending entries of the last one as its own."""


def entry_order(entry_id: str) -> tuple[int, int]:
    """A sort key for entry ids: stream order is that of the numbers, not of the text."""
    milliseconds, _, ordinal = entry_id.partition("-")
    return int(milliseconds), int(ordinal or 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry; `fields` is empty where a third party deleted a pending entry."""

    entry_id: str
    fields: Mapping[bytes, bytes]

    @property
    def size_bytes(self) -> int:
        """Bytes of all field names and values."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far the worker is behind.

    Attributes:
        entries: Entries in the stream.
        pending: Delivered and not settled.
        unread: Not delivered yet, None where the broker does not know.
        oldest_ms: Wall clock of the oldest entry that is not settled, None if there is none.
    """

    entries: int
    pending: int
    unread: int | None
    oldest_ms: int | None

    def unsettled(self, retained: int = 0) -> int:
        """Entries that wait for their settlement; `retained` ones stay after it."""
        by_length = max(self.entries - retained, 0)
        if self.unread is None:
            return by_length
        # The broker's lag still counts entries that a third party trimmed.
        return min(by_length, self.pending + self.unread)

    @property
    def acknowledged(self) -> int:
        """Entries that are neither pending nor unread; too few where the broker's lag is stale."""
        return max(self.entries - self.pending - (self.unread or 0), 0)


class TrajectoryStream:
    """Reads of one client's stream through its consumer group. Not thread-safe while blocking."""

    def __init__(self, broker: Broker, keys: ClientKeys) -> None:
        """Prepare; `broker` needs a timeout above the longest `block_ms`."""
        self._broker = broker
        self._keys = keys

    def ensure_group(self) -> None:
        """Create the stream and its group where missing, from the first entry on."""
        run_script(self._broker, "group", [self._keys.traj], [GROUP])

    def read_new(self, *, count: int, block_ms: int) -> list[Entry]:
        """Up to `count` entries that nobody has read, waiting up to `block_ms` for the first.

        A stream that vanished (deleted, flushed) is created again and read from its beginning.
        """
        redis_client = self._broker.redis
        with translate(self._broker.where):
            try:
                reply = redis_client.xreadgroup(
                    GROUP, CONSUMER, {self._keys.traj: ">"}, count=count, block=block_ms
                )
            except redis.ResponseError as error:
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                self.ensure_group()
                return []
        found = cast("dict[bytes, list[Any]]", reply).get(self._keys.traj.encode(), [])
        return [Entry(entry_id.decode(), fields or {}) for entry_id, fields in found]

    def read_pending(
        self, *, page: int, group: int | None = None, known: Container[str] = ()
    ) -> Iterator[list[Entry]]:
        """Entries delivered and not settled, oldest first, in groups of up to `group`.

        To whomever they were delivered: the commit asks the group's list, not a consumer's. Ids
        travel first, so that looking for a few forgotten entries among thousands is cheap.

        Args:
            page: Most ids asked for at once.
            group: Most entries asked for at once; None takes `page`.
            known: Ids whose entries are not wanted.
        """
        after = "-"
        while ids := self._pending_ids(after, page):
            after = f"({ids[-1]}"
            wanted = [entry_id for entry_id in ids if entry_id not in known]
            width = group or page
            for first in range(0, len(wanted), width):
                yield self._entries(wanted[first : first + width])

    def settled(self, *, page: int) -> Iterator[Entry]:
        """Entries that were settled and have stayed in the stream, oldest first.

        Exact for the holder of the lease, while nobody else settles anything.

        Args:
            page: Most entries, or ids of pending ones, asked for at once.
        """
        # In this order: what is delivered meanwhile lies above the first answer.
        last = self._last_delivered()
        pending: set[str] = set()
        after = "-"
        while ids := self._pending_ids(after, page):
            pending.update(ids)
            after = f"({ids[-1]}"
        after = "-"
        while rows := self._range(after, last, page):
            for entry_id, fields in rows:
                if entry_id not in pending:
                    yield Entry(entry_id, fields)
            after = f"({rows[-1][0]}"

    def make_pending(self, ids: Sequence[str]) -> None:
        """Put entries back among the pending ones that were acknowledged without a commit.

        Only for the holder of the lease: then no commit settles them in between.

        Args:
            ids: Of entries in the stream.
        """
        with translate(self._broker.where):
            self._broker.redis.xclaim(
                self._keys.traj,
                GROUP,
                CONSUMER,
                min_idle_time=0,
                message_ids=list(ids),
                force=True,
                justid=True,
            )

    def _last_delivered(self) -> str:
        """Id of the newest entry that anybody has read; "0-0" where there is none."""
        with translate(self._broker.where):
            try:
                groups = self._broker.redis.xinfo_groups(self._keys.traj)
            except redis.ResponseError as error:
                if "no such key" not in str(error).lower():
                    raise
                return "0-0"
        for group in groups:
            if group["name"] == GROUP.encode():
                return str(group["last-delivered-id"].decode())
        return "0-0"

    def _range(self, after: str, last: str, count: int) -> list[tuple[str, dict[bytes, bytes]]]:
        with translate(self._broker.where):
            reply = self._broker.redis.xrange(self._keys.traj, min=after, max=last, count=count)
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
        return [(entry_id.decode(), fields) for entry_id, fields in rows]

    def _pending_ids(self, after: str, count: int) -> list[str]:
        with translate(self._broker.where):
            try:
                reply = self._broker.redis.xpending_range(
                    self._keys.traj, GROUP, min=after, max="+", count=count
                )
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self.ensure_group()
                return []
        return [row["message_id"].decode() for row in cast("list[dict[str, bytes]]", reply)]

    def _entries(self, ids: Sequence[str]) -> list[Entry]:
        pipe = self._broker.redis.pipeline(transaction=False)
        for entry_id in ids:
            pipe.xrange(self._keys.traj, min=entry_id, max=entry_id)
        with translate(self._broker.where), pipe:
            replies = cast("list[list[tuple[bytes, dict[bytes, bytes]]]]", pipe.execute())
        return [
            Entry(entry_id, rows[0][1] if rows else {})
            for entry_id, rows in zip(ids, replies, strict=True)
        ]

    def pending_count(self) -> int:
        """Entries delivered and not settled; 0 where there is no group."""
        return self.backlog().pending

    def backlog(self) -> Backlog:
        """How far the worker is behind; all zero where there is no stream."""
        with translate(self._broker.where):
            try:
                info = self._broker.redis.xinfo_stream(self._keys.traj)
                groups = self._broker.redis.xinfo_groups(self._keys.traj)
            except redis.ResponseError as error:
                if "no such key" not in str(error).lower():
                    raise
                return Backlog(0, 0, 0, None)
        for group in groups:
            if group["name"] == GROUP.encode():
                last = group["last-delivered-id"].decode()
                oldest = self._oldest_unsettled(group["pending"], last)
                return Backlog(info["length"], group["pending"], group.get("lag"), oldest)
        first = info.get("first-entry")
        oldest = entry_order(first[0].decode())[0] if first else None
        return Backlog(info["length"], 0, info["length"], oldest)

    def _oldest_unsettled(self, pending: int, last_delivered: str) -> int | None:
        """Wall clock of it: what a replay buffer keeps in the stream does not count."""
        ids = self._pending_ids("-", 1) if pending else []
        if not ids:
            ids = [entry_id for entry_id, _ in self._range(f"({last_delivered}", "+", 1)]
        return entry_order(ids[0])[0] if ids else None

    def addresses(self) -> Iterator[Entry]:
        """Every entry in the stream, oldest first; for the audit."""
        after = "-"
        while True:
            with translate(self._broker.where):
                reply = self._broker.redis.xrange(self._keys.traj, min=after, count=200)
            page = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
            for entry_id, fields in page:
                yield Entry(entry_id.decode(), fields)
            if not page:
                return
            after = f"({page[-1][0].decode()}"
