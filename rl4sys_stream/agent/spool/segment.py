"""One file of a spool: records are written at its end, trajectories are read from anywhere."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from rl4sys_stream.agent.spool.records import MAGIC

__all__ = ["RESERVE_BYTES", "Segment"]

RESERVE_BYTES: Final = 64 << 10
"""Room that trajectories leave for the books: on a full disk numbers can still be given."""


class Segment:
    """A segment file. Writes go to a tracked end, so that what a failed write left is overwritten.

    Attributes:
        path: Of the file.
        size: Bytes that it may have.
        end: Where the next record goes.
        live: Trajectories in it that are still needed.
    """

    def __init__(self, path: Path, descriptor: int, *, size: int, end: int) -> None:
        """Around an open file; use `create` or `open`."""
        self.path = path
        self._descriptor = descriptor
        self.size = size
        self.end = end
        self.live = 0

    @classmethod
    def create(cls, path: Path, size: int) -> Self:
        """A new file with all of its room taken from the disk.

        A file of that name is what an attempt left that could not be deleted either. It is
        overwritten: under another number each further attempt might leave one more.

        Raises:
            OSError: If there is no room; then nothing is left behind that could be read.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            # Room that is taken now cannot be missing when a number has to be written down.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            segment = cls(path, descriptor, size=size, end=0)
            segment.write(MAGIC)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        return segment

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing file, to be read only.

        Raises:
            OSError: If it cannot be opened, or is no file.
        """
        # Without O_NONBLOCK a pipe of that name would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no regular file")
        return cls(path, descriptor, size=found.st_size, end=found.st_size)

    @property
    def number(self) -> int:
        """Its place in the order of segments."""
        return int(self.path.stem)

    def fits(self, length: int, *, reserve: int = 0) -> bool:
        """Whether a record of `length` bytes leaves `reserve` bytes free."""
        return self.end + length + reserve <= self.size

    def write(self, record: bytes) -> int:
        """Append `record`; where it begins.

        Raises:
            OSError: If it could not be written whole; the end stays where it was.
        """
        start, view = self.end, memoryview(record)
        written = 0
        while written < len(record):
            written += os.pwrite(self._descriptor, view[written:], start + written)
        self.end = start + len(record)
        return start

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end of the file. Raises OSError."""
        return os.pread(self._descriptor, length, offset)

    def sync(self) -> None:
        """Return when the disk has what was written. Raises OSError."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(self._descriptor)
        else:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close the file and delete it."""
        self.close()
        self.path.unlink(missing_ok=True)
