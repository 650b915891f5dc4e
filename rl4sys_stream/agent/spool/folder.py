"""Whose folder is whose: each agent's spool has one, held by a lock for as long as it lives."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from rl4sys_stream.errors import SpoolError

__all__ = ["Orphans", "SpoolFolder"]

_LOCK = "lock"
_DAMAGED = ".damaged"
_SEGMENT = re.compile(r"[0-9]{1,18}\.seg")
_UNBORN = "."


class SpoolFolder:
    """One agent's folder, locked by this process."""

    def __init__(self, path: Path, lock: int) -> None:
        """Use `create` or `adopt`."""
        self.path = path
        self._lock = lock
        self._owner = os.getpid()

    @classmethod
    def create(cls, base: Path, agent_id: str) -> Self:
        """The folder of a new agent.

        Raises:
            SpoolError: If it cannot be made; the message says what to do.
        """
        path = base / agent_id
        # Under a name that nobody adopts until it is locked: else an agent that looks for orphans
        # at this instant would find an empty folder without an owner, and clear it away.
        unborn = base / f"{_UNBORN}{agent_id}"
        try:
            unborn.mkdir(mode=0o700, parents=True)
            folder = cls._locked(unborn, os.O_CREAT)
            if folder is not None:
                unborn.rename(path)
                folder.path = path
        except OSError as error:
            raise SpoolError(
                f"cannot keep a spool in {base}: {error}; give agent.spool_dir a folder that this "
                "user may write to, or leave it out"
            ) from error
        if folder is None:
            raise SpoolError(f"{path} is locked by somebody else; leave the folder to its agent")
        return folder

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """The folder of an agent that is dead; None if it lives, or the folder is gone."""
        try:
            return cls._locked(path, 0)
        except FileNotFoundError:
            # The lock is the first thing in a folder and the last one that leaves it.
            with suppress(OSError):
                path.rmdir()
            return None
        except OSError:
            return None

    @classmethod
    def _locked(cls, path: Path, flags: int) -> Self | None:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the opening and the locking another agent may have emptied and removed it.
            if (path / _LOCK).stat().st_ino != os.fstat(lock).st_ino:
                raise BlockingIOError
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError:
            os.close(lock)
            raise
        return cls(path, lock)

    def segments(self) -> list[Path]:
        """The segment files, oldest first; what has no such name is not ours."""
        found = [path for path in self.path.glob("*.seg") if _SEGMENT.fullmatch(path.name)]
        return sorted(found, key=lambda path: (int(path.stem), path.name))

    def segment_path(self, number: int) -> Path:
        """Where segment `number` lies."""
        return self.path / f"{number:08d}.seg"

    def release(self) -> None:
        """Give the lock up; what is in the folder waits for an agent that adopts it.

        A forked child calls it too: its parent's lock stays.
        """
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        if os.getpid() == self._owner:
            # Closing is not enough: a child that was forked off meanwhile may hold a copy, and the
            # lock with it for as long as it lives.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)

    def set_aside(self) -> None:
        """Leave what cannot be read to people, under a name that nobody adopts."""
        with suppress(OSError):
            self.path.rename(self.path.with_name(self.path.name + _DAMAGED))
        self.release()

    def remove(self) -> None:
        """Delete the folder, then give the lock up.

        The lock's file goes last: a folder without one is adopted by nobody, so what a kill in the
        middle left in it would lie there for ever.
        """
        with suppress(OSError):
            for segment in self.segments():
                segment.unlink()
            shutil.rmtree(self.path, ignore_errors=True)
        self.release()


class Orphans:
    """Folders whose agents are dead, locked by this process one after another.

    Each is the taker's to release or to remove. Used by one thread.
    """

    def __init__(self, base: Path, own: str) -> None:
        """Look at nothing yet.

        Args:
            base: Of the client.
            own: The asking agent's id.
        """
        self._base = base
        self._own = own
        self._given: SpoolFolder | None = None

    def __iter__(self) -> Iterator[SpoolFolder]:
        """Those that there are now."""
        try:
            names = sorted(entry.name for entry in self._base.iterdir() if entry.is_dir())
        except OSError:
            return
        for name in names:
            if name == self._own or name.endswith(_DAMAGED) or name.startswith(_UNBORN):
                continue
            self._given = SpoolFolder.adopt(self._base / name)
            if self._given is not None:
                yield self._given

    def disown(self) -> None:
        """In a forked child: whichever was in hand at the fork is the parent's.

        Else it would look alive, should the parent be killed, for as long as the child lives.
        """
        if self._given is not None:
            self._given.release()
