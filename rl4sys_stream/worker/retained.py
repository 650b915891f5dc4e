"""The retained tail: entries that stay in the stream because a replay buffer still uses them.

They are settled, and belong to nobody's pending list. After a restart the buffer is filled from
them again, so what the buffer holds need not be part of any checkpoint.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence

from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.telemetry import StateLog
from rl4sys_stream.wire.trajectory import EntryAddress, Trajectory, TrajectorySpec
from rl4sys_stream.worker.intake import examine

__all__ = ["RetainedTail"]

logger = logging.getLogger("rl4sys_stream.worker")

ENTRY_BYTES = 64
"""What the broker spends on an entry beside its fields."""
PAGE = 256


class RetainedTail:
    """Which entries those are, oldest first. It changes with each commit, and only then."""

    def __init__(self, client: str, *, max_bytes: int, max_deleted: int) -> None:
        """An empty tail.

        Args:
            client: For the log.
            max_bytes: The broker holds no more than this for the buffer, whatever that would like
                to keep: of very short trajectories the overhead is larger than what they hold.
            max_deleted: Entries that one commit deletes of it.
        """
        self._max_bytes = max_bytes
        self._max_deleted = max_deleted
        self._entries: deque[tuple[str, int]] = deque()
        self._unusable: deque[str] = deque()
        self._bytes = 0
        self._log = StateLog(logger, client=client)

    def __len__(self) -> int:
        return len(self._entries)

    def read(
        self,
        stream: TrajectoryStream,
        spec: TrajectorySpec,
        is_settled: Callable[[EntryAddress], bool],
    ) -> list[Trajectory]:
        """Find the tail in the stream; its trajectories, oldest first.

        Only for the holder of the lease, before it reads anything new. Entries that no commit has
        settled become pending again: whoever acknowledged them, nobody would ever read them.

        Args:
            stream: Of the client.
            spec: What a trajectory of the client looks like.
            is_settled: Whether a number is settled, by the committed ledgers.

        Raises:
            BrokerError: Safe to retry with a new object.
        """
        found: list[Trajectory] = []
        unsettled: list[str] = []
        for entry in stream.settled(page=PAGE):
            candidate = examine(entry, spec)
            if candidate.address is None or not is_settled(candidate.address):
                unsettled.append(entry.entry_id)
            elif candidate.trajectory is None:  # above a limit that was lowered since
                self._unusable.append(entry.entry_id)
            else:
                self._append(entry.entry_id, entry.size_bytes)
                found.append(candidate.trajectory)
        for first in range(0, len(unsettled), PAGE):
            stream.make_pending(unsettled[first : first + PAGE])
        return found

    def advance(self, trained: Sequence[tuple[str, int]], keep: int) -> list[str]:
        """Take in what a commit trains on, and give up what the buffer has no use for any more.

        Args:
            trained: Entries that the commit settles by training, and their sizes in bytes, in the
                order in which the learner observed them.
            keep: How many of the newest the buffer still uses.

        Returns:
            Ids of the entries that the commit is to delete.
        """
        for entry_id, size in trained:
            self._append(entry_id, size)
        deleted: list[str] = []
        while len(deleted) < self._max_deleted + len(trained):  # the next commit goes on
            if self._unusable:
                deleted.append(self._unusable.popleft())
            elif len(self._entries) > keep or self._bytes > self._max_bytes:
                entry_id, size = self._entries.popleft()
                self._bytes -= size
                deleted.append(entry_id)
            else:
                break
        short = len(self._entries) < keep
        self._log.set(
            "worker.retained",
            "cut_short" if short else "whole",
            level=logging.WARNING if short else logging.DEBUG,
            entries=len(self._entries),
            buffer=keep,
            why="worker.retained_bytes: after a restart the replay buffer will be smaller",
        )
        return deleted

    def _append(self, entry_id: str, size: int) -> None:
        self._entries.append((entry_id, size + ENTRY_BYTES))
        self._bytes += size + ENTRY_BYTES
