"""A disk that refuses, at the edge where the package asks it: the functions of `os`."""

import errno
import os
from typing import Any

import pytest

_NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


class Disk:
    """Takes everything, until it is told not to.

    Attributes:
        room: Whether new files get room.
        writes: Whether writes succeed; a failing one leaves the first half of its bytes behind.
        syncs: Whether the disk confirms what it was given.
        removals: Whether files can be deleted.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room = self.writes = self.syncs = self.removals = True
        self._pwrite, self._fallocate, self._sync = os.pwrite, os.posix_fallocate, os.fdatasync
        self._unlink = os.unlink
        patch.setattr("os.unlink", self._remove)
        patch.setattr("os.pwrite", self._write)
        patch.setattr("os.posix_fallocate", self._take_room)
        patch.setattr("os.fdatasync", self._confirm)

    def _write(self, descriptor: int, data: Any, offset: int) -> int:
        if self.writes:
            return self._pwrite(descriptor, data, offset)
        if len(data) > 1:
            self._pwrite(descriptor, data[: len(data) // 2], offset)
        raise _NO_ROOM

    def _take_room(self, descriptor: int, offset: int, length: int) -> None:
        if not self.room:
            raise _NO_ROOM
        self._fallocate(descriptor, offset, length)

    def _confirm(self, descriptor: int) -> None:
        if not self.syncs:
            raise OSError(errno.EIO, "Input/output error")
        self._sync(descriptor)

    def _remove(self, path: Any, **options: Any) -> None:
        if not self.removals:
            raise OSError(errno.EROFS, "Read-only file system")
        self._unlink(path, **options)
