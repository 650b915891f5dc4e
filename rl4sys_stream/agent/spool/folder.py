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

__all__ = ["SpoolFolder", "orphans"]

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
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_aside(self) -> None:
        """Leave what cannot be read to people, under a name that nobody adopts."""
        with suppress(OSError):
            self.path.rename(self.path.with_name(self.path.name + _DAMAGED))
        self.release()

    def remove(self) -> None:
        """Delete the folder, then give the lock up."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


def orphans(base: Path, own: str) -> Iterator[SpoolFolder]:
    """Folders under `base` whose agents are dead, locked by this process one after another.

    Args:
        base: Of the client.
        own: The asking agent's id.
    """
    try:
        names = sorted(entry.name for entry in base.iterdir() if entry.is_dir())
    except OSError:
        return
    for name in names:
        if name == own or name.endswith(_DAMAGED) or name.startswith(_UNBORN):
            continue
        folder = SpoolFolder.adopt(base / name)
        if folder is not None:
            yield folder
